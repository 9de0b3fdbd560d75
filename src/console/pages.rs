//! What a browser loads: files of the binary, and nothing else.

use axum::Router;
use axum::http::header;
use axum::routing::get;

const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page/page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/plots.js", "text/javascript; charset=utf-8", include_str!("page/plots.js")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |routes, (path, kind, text)| {
        routes.route(path, get(move || async move { ([(header::CONTENT_TYPE, *kind)], *text) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_of_elsewhere_and_no_inline_script() {
        let (_, _, page) = FILES[0];
        assert_eq!(page.matches("<script").count(), page.matches("<script src=\"").count());
        for (path, _, text) in FILES {
            assert!(!text.contains("style=\"") && !text.contains("onclick"), "{path}: what the policy refuses");
            let others = text
                .match_indices("://")
                .filter(|(at, _)| !text[..*at].ends_with("http") || !text[*at..].starts_with("://www.w3.org/2000/svg"));
            assert_eq!(others.count(), 0, "{path} names another place");
            assert!(
                !text.contains("innerHTML") && !text.contains("insertAdjacentHTML") && !text.contains("document.write"),
                "{path}"
            );
        }
    }
}
