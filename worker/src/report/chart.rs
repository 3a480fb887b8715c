//! Charts as inline SVG, and bars. The drawing stretches to its box; all text is HTML beside it,
//! so that it stays readable on a phone.

use std::fmt::Write as _;

use super::html;
use super::state::{Bucket, Series};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;

/// A line over time.
pub(super) struct Chart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// What stands large beside the title: the value overall.
    pub(super) overall: String,
    pub(super) unit: &'a str,
    /// The value of a bucket; `None` where there is none.
    pub(super) value: &'a dyn Fn(Option<&Bucket>) -> Option<f64>,
}

impl Chart<'_> {
    /// A figure with title, axis labels and the line.
    pub(super) fn render(&self, series: &Series, out: &mut String) {
        let points = self.points(series);
        let highest = points.iter().filter_map(|point| *point).fold(0.0, f64::max);
        let top = round_up(highest);
        let (from, to) = ends(series);
        let _ = write!(
            out,
            "<figure class=\"card chart {id}\" aria-labelledby=\"{id}-title\">\
             <figcaption><h2 id=\"{id}-title\">{title}</h2><p class=\"big\">{overall}</p></figcaption>\
             <div class=\"plot\"><div class=\"y\" aria-hidden=\"true\"><span>{}</span><span>{}</span><span>0</span></div>",
            short(top),
            short(top / 2.0),
            id = self.id,
            title = self.title,
            overall = self.overall,
        );
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{} over time, from 0 to {} {}\">",
            self.title,
            short(highest),
            self.unit
        );
        for line in [0.0, 0.5, 1.0] {
            let y = 1.0 + line * (HEIGHT - 2.0);
            let _ = write!(out, "<path class=\"grid\" d=\"M0 {y}H{WIDTH}\"/>");
        }
        draw_line(&points, top, out);
        self.draw_hints(series, &points, out);
        let _ = write!(
            out,
            "</svg><div class=\"x\"><span>{from}</span><span>{to}</span></div></div></figure>"
        );
    }

    fn points(&self, series: &Series) -> Vec<Option<f64>> {
        let first = series.buckets.keys().next().copied().unwrap_or(0);
        let value = |n| (self.value)(series.buckets.get(&(first + n)));
        (0..series.span()).map(value).collect()
    }

    /// Invisible boxes that tell the value under the pointer.
    fn draw_hints(&self, series: &Series, points: &[Option<f64>], out: &mut String) {
        let first = series.buckets.keys().next().copied().unwrap_or(0);
        let step = WIDTH / points.len().max(1) as f64;
        for (n, point) in points.iter().enumerate() {
            let Some(value) = point else { continue };
            let millis = (first + n as u64).saturating_mul(series.width_millis);
            let _ = write!(
                out,
                "<rect class=\"hint\" x=\"{:.0}\" width=\"{step:.1}\"><title>{}: {value:.2} {}</title></rect>",
                n as f64 * step,
                html::time(millis),
                self.unit
            );
        }
    }
}

/// The line and the area under it; it goes straight over places without a value.
fn draw_line(points: &[Option<f64>], top: f64, out: &mut String) {
    let step = WIDTH / points.len().max(1) as f64;
    let known = points.iter().enumerate();
    let known = known.filter_map(|(n, point)| point.map(|value| (n, value)));
    let place = |(n, value): (usize, f64)| {
        let x = (n as f64 + 0.5) * step;
        let y = HEIGHT - value / top.max(f64::MIN_POSITIVE) * (HEIGHT - 8.0) - 1.0;
        (x, y)
    };
    let places: Vec<_> = known.map(place).collect();
    let (Some(first), Some(last)) = (places.first(), places.last()) else {
        return;
    };
    // From edge to edge, so that a single point is a line too.
    let mut path = format!("M0 {:.1}", first.1);
    for (x, y) in &places {
        let _ = write!(path, "L{x:.1} {y:.1}");
    }
    let _ = write!(path, "L{WIDTH} {:.1}", last.1);
    let _ = write!(
        out,
        "<path class=\"area\" d=\"{path}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z\"/><path class=\"line\" d=\"{path}\"/>"
    );
}

/// Time of the first and the last bucket.
fn ends(series: &Series) -> (String, String) {
    let first = series.buckets.keys().next();
    let last = series.buckets.keys().next_back();
    let Some((first, last)) = first.zip(last) else {
        return (html::none(), html::none());
    };
    let at = |key: u64| html::time(key.saturating_mul(series.width_millis));
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
        html::count(value.round() as u64)
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// One horizontal bar, as a share of the whole from 0 to 1.
pub(super) fn bar(share: f64, out: &mut String) {
    let _ = write!(
        out,
        "<svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"rail\" width=\"100\" height=\"8\"/><rect class=\"fill\" width=\"{:.2}\" height=\"8\"/></svg>",
        (share * 100.0).clamp(0.0, 100.0)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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
