//! Charts as inline SVG, and bars. The drawing stretches to its box; all text is HTML beside it, so that it stays readable
//! on a phone.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::figures;
use super::state::{Series, SeriesBucket};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;

/// A line over time.
pub(super) struct Chart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// The value overall, in large letters beside the title.
    pub(super) overall: String,
    pub(super) unit: &'a str,
    /// The unit on the axis.
    pub(super) axis_unit: &'a str,
    /// The value of a bucket; `None` where there is none.
    pub(super) value: &'a dyn Fn(Option<&SeriesBucket>) -> Option<f64>,
}

impl Chart<'_> {
    /// A figure with title, axis labels and the line.
    pub(super) fn render(&self, series: &Series) -> Markup {
        let points = self.points(series);
        let highest = points.iter().filter_map(|point| *point).fold(0.0, f64::max);
        let top = round_up(highest);
        let (from, to) = ends(series);
        let title_id = format!("{}-title", self.id);
        let description = format!(
            "{} over time, from 0 to {} {}",
            self.title,
            short(highest),
            self.unit
        );
        html! {
            figure class={ "card chart " (self.id) } aria-labelledby=(title_id) {
                figcaption { h2 id=(title_id) { (self.title) } p.big { (self.overall) } }
                div.plot {
                    div.y aria-hidden="true" {
                        span { (short(top)) " " (self.axis_unit) }
                        span { (short(top / 2.0)) }
                        span { "0" }
                    }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(description) {
                        @for line in [0.0, 0.5, 1.0] {
                            path.grid d={ "M0 " (1.0 + line * (HEIGHT - 2.0)) "H" (WIDTH) } {}
                        }
                        (line(&points, top))
                        (self.hints(series, &points))
                    }
                    div.x { span { (from) } span { (to) " UTC" } }
                }
            }
        }
    }

    fn points(&self, series: &Series) -> Vec<Option<f64>> {
        let first = series.first_key().unwrap_or(0);
        let value = |n| (self.value)(series.buckets.get(&(first + n)));
        (0..series.span()).map(value).collect()
    }

    /// Invisible boxes that show the value under the pointer.
    fn hints(&self, series: &Series, points: &[Option<f64>]) -> Markup {
        let first = series.first_key().unwrap_or(0);
        let step = WIDTH / points.len().max(1) as f64;
        html! {
            @for (n, point) in points.iter().enumerate() {
                @if let Some(value) = point {
                    @let millis = (first + n as u64).saturating_mul(series.width_millis);
                    rect.hint x=(format!("{:.0}", n as f64 * step)) width=(format!("{step:.1}")) {
                        title { (figures::time(millis)) ": " (format!("{value:.2}")) " " (self.unit) }
                    }
                }
            }
        }
    }
}

/// The lines and the areas under them; a line ends where a point has no value.
fn line(points: &[Option<f64>], top: f64) -> Markup {
    let step = WIDTH / points.len().max(1) as f64;
    let height = |value: f64| HEIGHT - value / top.max(f64::MIN_POSITIVE) * (HEIGHT - 8.0) - 1.0;
    let mut parts = Vec::new();
    let mut begin = 0;
    for part in points.split(Option::is_none) {
        let values: Vec<f64> = part.iter().copied().flatten().collect();
        if let (Some(first), Some(last)) = (values.first(), values.last()) {
            // From edge to edge, so that a single point is a line too.
            let (left, right) = (begin as f64 * step, (begin + part.len()) as f64 * step);
            let mut path = format!("M{left:.1} {:.1}", height(*first));
            for (n, value) in values.iter().enumerate() {
                let x = left + (n as f64 + 0.5) * step;
                let _ = write!(path, "L{x:.1} {:.1}", height(*value));
            }
            let _ = write!(path, "L{right:.1} {:.1}", height(*last));
            parts.push((left, right, path));
        }
        begin += part.len() + 1;
    }
    html! {
        @for (left, right, path) in &parts {
            path.area d={ (path) "L" (format!("{right:.1}")) " " (HEIGHT) "L" (format!("{left:.1}")) " " (HEIGHT) "Z" } {}
            path.line d=(path) {}
        }
    }
}

/// Time of the first and the last bucket.
fn ends(series: &Series) -> (String, String) {
    let first = series.buckets.keys().next();
    let last = series.buckets.keys().next_back();
    let Some((first, last)) = first.zip(last) else {
        return (figures::none(), figures::none());
    };
    let at = |key: u64| figures::time(key.saturating_mul(series.width_millis));
    let (from, to) = (at(*first), at(last.saturating_add(1)));
    // The second needs no date when it is the same day.
    match (from.get(..10), to.get(..10), to.get(11..)) {
        (Some(day), Some(other), Some(hour)) if day == other => (from.clone(), hour.to_owned()),
        _ => (from, to),
    }
}

/// The next round number: the top of an axis.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let fitting = steps
        .iter()
        .map(|step| step * unit)
        .find(|top| *top >= value);
    fitting.unwrap_or(value)
}

fn short(value: f64) -> String {
    if value >= 100.0 {
        figures::count(value.round() as u64)
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// One horizontal bar, as a share of the whole from 0 to 1.
pub(super) fn bar(share: f64) -> Markup {
    let width = format!("{:.2}", (share * 100.0).clamp(0.0, 100.0));
    html! {
        svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.rail width="100" height="8" {}
            rect.fill width=(width) height="8" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let lines = |points: &[Option<f64>]| {
            let drawn = line(points, 4.0).into_string();
            let count = |text: &str| drawn.matches(text).count();
            (count("class=\"line\""), count("class=\"area\""), count("L"))
        };
        // Each area has two corners more than its line.
        assert_eq!(lines(&[Some(1.0), Some(2.0)]), (1, 1, 3 + 3 + 2));
        assert_eq!(
            lines(&[Some(1.0), None, None, Some(2.0)]),
            (2, 2, 2 * (2 + 2 + 2))
        );
        assert_eq!(lines(&[None, Some(1.0), None]), (1, 1, 2 + 2 + 2));
        assert_eq!(lines(&[None, None]), (0, 0, 0));
        assert_eq!(lines(&[]), (0, 0, 0));
        let gap = line(&[Some(4.0), None, Some(4.0), Some(4.0)], 4.0).into_string();
        assert!(gap.contains("M0.0 7.0L125.0 7.0L250.0 7.0\""), "{gap}");
        assert!(
            gap.contains("M500.0 7.0L625.0 7.0L875.0 7.0L1000.0 7.0\""),
            "{gap}"
        );
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [
            (0.0, 1.0),
            (0.73, 0.8),
            (7.3, 8.0),
            (96.0, 100.0),
            (101.0, 150.0),
        ] {
            assert!(
                (round_up(value) - top).abs() < 1e-9,
                "{value}: {}",
                round_up(value)
            );
        }
        assert_eq!(short(7.5), "7.5");
        assert_eq!(short(8.0), "8");
        assert_eq!(short(1500.0), "1,500");
    }
}
