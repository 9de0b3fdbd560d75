//! Pictures of pages, and colours.

use std::collections::HashSet;

pub(crate) type Rgb = [u8; 3];
/// A left, a top, a right and a bottom, in pixels.
pub(crate) type Rect = [f64; 4];

pub(crate) struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Picture {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut data).unwrap();
        let pixels = data[..info.buffer_size()].chunks(info.color_type.samples()).map(|p| [p[0], p[1], p[2]]).collect();
        Self { width: info.width as usize, height: info.height as usize, pixels }
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> Rgb {
        self.pixels[y * self.width + x]
    }

    /// The pixels inside a rectangle.
    pub(crate) fn inside(&self, [left, top, right, bottom]: Rect) -> Vec<Rgb> {
        let (columns, rows) = (left.max(0.0) as usize..right as usize, top.max(0.0) as usize..bottom as usize);
        assert!(columns.end <= self.width && rows.end <= self.height, "{columns:?} {rows:?} is outside the picture");
        rows.flat_map(|y| columns.clone().map(move |x| (x, y))).map(|(x, y)| self.at(x, y)).collect()
    }
}

pub(crate) fn distinct(pixels: &[Rgb]) -> usize {
    pixels.iter().collect::<HashSet<_>>().len()
}

/// Whether a colour is among the pixels, or nearly.
pub(crate) fn has(pixels: &[Rgb], color: Rgb) -> bool {
    pixels.iter().any(|pixel| pixel.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 16))
}

/// `rgb(1, 2, 3)`.
pub(crate) fn parse(color: &str) -> Rgb {
    let numbers = color.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let numbers = numbers.unwrap_or_else(|| panic!("{color:?} is no opaque colour"));
    let numbers: Vec<u8> = numbers.split(", ").map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// WCAG 2's relative luminance, from 0 to 1.
pub(crate) fn luminance(color: Rgb) -> f64 {
    let [r, g, b] = color.map(|channel| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// WCAG 2's contrast ratio, from 1 to 21.
pub(crate) fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

/// The contrast between the lightest and the darkest pixel.
pub(crate) fn contrast_within(pixels: &[Rgb]) -> f64 {
    let by_luminance = |a: &&Rgb, b: &&Rgb| luminance(**a).total_cmp(&luminance(**b));
    match (pixels.iter().max_by(by_luminance), pixels.iter().min_by(by_luminance)) {
        (Some(light), Some(dark)) => contrast(*light, *dark),
        _ => 1.0,
    }
}
