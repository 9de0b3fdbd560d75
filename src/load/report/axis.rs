//! Axes: where a value stands, and which values are written beside them.

use super::text::{self, Unit};

/// About how many ticks a linear axis has.
const TICKS: f64 = 5.0;
/// A logarithmic axis of more decades than this has no ticks between powers of ten.
const DECADES_WITH_FIVES: f64 = 3.0;
/// A logarithmic axis never has more decades than this; smaller values stand at its foot.
const DECADES: f64 = 9.0;
/// Steps between ticks of time, in seconds. Longer ones are whole days.
const TIME_STEPS: [f64; 17] =
    [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 43_200.0];
const DAY_S: f64 = 86_400.0;
/// No percentile is told from 100 % beyond so many nines.
const NINES: f64 = 9.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Log,
    /// By `log10(1 / (1 - p))`: 90 %, 99 % and 99.9 % are equally far apart.
    Percentile,
}

/// A value with its text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    /// In the scale's own measure.
    min: f64,
    max: f64,
    pub(super) ticks: Vec<Tick>,
    pub(super) unit: Unit,
}

impl Axis {
    /// From 0 to the first tick at or above a value; the ticks are 1, 2 or 5 times a power of ten apart.
    pub(super) fn from_zero(max: f64, unit: Unit) -> Self {
        let max = positive(max).unwrap_or(unit.scale()) / unit.scale();
        let step = step(max / TICKS);
        let steps = (max / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as usize).map(|at| at as f64 * step * unit.scale());
        let ticks = ticks.map(|value| Tick { value, text: unit.tick(value) }).collect();
        Self { scale: Scale::Linear, min: 0.0, max: steps * step * unit.scale(), ticks, unit }
    }

    /// From the first power of ten at or below a value to 1, 2 or 5 times one at or above another.
    pub(super) fn log(min: f64, max: f64, unit: Unit) -> Self {
        let max = positive(max).unwrap_or(1.0);
        let high = step(max * (1.0 - 1e-9)).log10();
        let low = positive(min).map_or(max, |min| min.min(max));
        let low = (low.log10() + 1e-9).floor().min(high - 1.0).max(high - DECADES).floor();
        let factors: &[f64] = if high - low <= DECADES_WITH_FIVES { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = low as i32..=high.ceil() as i32;
        let values = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)));
        let ticks = values.filter(|value| value.log10() <= high + 1e-9);
        let ticks = ticks.map(|value| Tick { value, text: unit.tick(value) }).collect();
        Self { scale: Scale::Log, min: low, max: high, ticks, unit }
    }

    /// From 0 to a number of seconds.
    pub(super) fn time(end_s: f64) -> Self {
        let end = positive(end_s).map_or(1.0, |end| end.max(TIME_STEPS[0]));
        let least = end / (TICKS + 2.0);
        let step = TIME_STEPS.iter().copied().find(|step| *step >= least);
        let step = step.unwrap_or_else(|| (least / DAY_S).ceil() * DAY_S);
        let values = (0..=(end / step + 1e-9) as usize).map(|at| at as f64 * step);
        let ticks = values.map(|value| Tick { value, text: text::clock(value) }).collect();
        Self { scale: Scale::Linear, min: 0.0, max: end, ticks, unit: Unit::Seconds }
    }

    /// From 0 % to the highest percentile below 100 %, and a little further, where 100 % stands.
    pub(super) fn percentile(highest: f64) -> Self {
        let highest = nines(highest).clamp(1.0, NINES);
        let whole = (1..=(highest + 1e-6).floor() as usize).map(|nines| match nines {
            1 => (90.0, "90 %".to_owned()),
            2 => (99.0, "99 %".to_owned()),
            _ => (100.0 - 100.0 / 10f64.powi(nines as i32), format!("99.{} %", "9".repeat(nines - 2))),
        });
        let ticks = [(50.0, "50 %".to_owned())].into_iter().chain(whole);
        let ticks = ticks.map(|(value, text)| Tick { value, text }).collect();
        Self { scale: Scale::Percentile, min: 0.0, max: highest * 1.04, ticks, unit: Unit::Share }
    }

    /// From 0 at the axis's beginning to 1 at its end; what lies outside stands at the nearer of them.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.log10(),
            Scale::Log => self.min,
            Scale::Percentile => nines(value),
        };
        let place = (value - self.min) / (self.max - self.min);
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }
}

/// A value that an axis can end at; far from where numbers end themselves.
fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then(|| value.clamp(1e-100, 1e100))
}

/// How many nines a percentile has: 1 for 90 %, 2 for 99 %; without a bound for 100 %.
fn nines(percentile: f64) -> f64 {
    match 1.0 - percentile / 100.0 {
        rest if rest >= 1.0 => 0.0,
        rest if rest > 0.0 => -rest.log10(),
        rest if rest.is_nan() => 0.0,
        _ => f64::INFINITY,
    }
}

/// The least of 1, 2 and 5 times a power of ten at or above a value.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_ones_twos_and_fives() {
        assert_eq!(texts(&Axis::from_zero(23.0, Unit::Events)), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(texts(&Axis::from_zero(0.7, Unit::Cores)), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(texts(&Axis::from_zero(1e6, Unit::Events)), ["0", "200k", "400k", "600k", "800k", "1M"]);
        assert_eq!(texts(&Axis::from_zero(1.0, Unit::Share)), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(texts(&Axis::from_zero(1024.0 * 1024.0 * 190.0, Unit::Bytes)).last(), Some(&"200"));
    }

    #[test]
    fn logarithmic_ticks_are_decades_with_twos_and_fives_where_there_is_room() {
        assert_eq!(texts(&Axis::log(3.0, 40.0, Unit::Millis)), ["1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
        let wide = Axis::log(0.4, 3000.0, Unit::Millis);
        assert_eq!(texts(&wide), ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert!((wide.place(5000.0) - 1.0).abs() < 1e-9);
        let (one, ten, hundred) = (wide.place(1.0), wide.place(10.0), wide.place(100.0));
        assert!((ten - one - (hundred - ten)).abs() < 1e-9, "decades are equally wide");
        assert_eq!(wide.place(0.0), 0.0);
        assert!(Axis::log(1e-30, 1e30, Unit::Millis).ticks.len() < 12);
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let axis = Axis::percentile(99.99);
        assert_eq!(texts(&axis), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        let at = [90.0, 99.0, 99.9, 99.99].map(|percentile| axis.place(percentile));
        assert!(at.windows(2).all(|pair| (pair[1] - pair[0] - (at[1] - at[0])).abs() < 1e-6), "{at:?}");
        assert!(at[3] < 1.0);
        assert_eq!((axis.place(0.0), axis.place(100.0), axis.place(f64::NAN)), (0.0, 1.0, 0.0));
        assert_eq!(texts(&Axis::percentile(100.0)).last(), Some(&"99.9999999 %"));
        assert_eq!(texts(&Axis::percentile(0.0)).last(), Some(&"90 %"));
    }

    #[test]
    fn time_has_the_steps_of_clocks() {
        assert_eq!(texts(&Axis::time(600.0)), ["0:00", "2:00", "4:00", "6:00", "8:00", "10:00"]);
        assert_eq!(texts(&Axis::time(7.0)), ["0:00", "0:01", "0:02", "0:03", "0:04", "0:05", "0:06", "0:07"]);
        assert!(Axis::time(1e7).ticks.len() <= 9);
    }

    #[test]
    fn nothing_to_show_still_makes_an_axis() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX] {
            for axis in [
                Axis::from_zero(value, Unit::Events),
                Axis::log(value, value, Unit::Millis),
                Axis::log(0.0, value, Unit::Millis),
                Axis::time(value.min(1e12)),
                Axis::percentile(value),
            ] {
                assert!((2..20).contains(&axis.ticks.len()), "{value}: {axis:?}");
                for at in [value, 0.0, 1.0, f64::NAN, f64::INFINITY] {
                    assert!((0.0..=1.0).contains(&axis.place(at)), "{axis:?} {at}");
                }
            }
        }
    }
}
