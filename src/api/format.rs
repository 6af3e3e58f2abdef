//! In which format a list is answered: by `?format=`, otherwise by the header `Accept`.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::{Kind, Problem};

/// A format of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ListFormat)]
pub(super) enum Format {
    /// One JSON object that holds the page.
    Json,
    /// A table with a header line, as in RFC 4180.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    /// All of them; the first is the one that a client gets that does not mind.
    const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Ndjson];

    /// Its media type.
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The format that the client likes best.
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        preferred(headers, &Self::ALL.map(|format| (format.media_type(), format)))
    }
}

/// What the client likes best of what there is: of the highest quality and, among equals, named most precisely. The first if it does
/// not mind.
pub(super) fn preferred<T: Copy, const N: usize>(headers: &HeaderMap, offers: &[(&str, T); N]) -> Result<T, Problem> {
    let ranges: Vec<Range<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    if ranges.is_empty() {
        return Ok(offers[0].1);
    }
    let liked = offers.iter().rev().filter_map(|&(media_type, offer)| {
        let range = ranges.iter().filter(|range| range.covers(media_type)).max_by_key(|range| range.precision())?;
        (range.quality > 0).then_some((range.quality, range.precision(), offer))
    });
    liked
        .max_by_key(|&(quality, precision, _)| (quality, precision))
        .map(|(.., offer)| offer)
        .ok_or_else(|| Problem::new(Kind::NotAcceptable, format!("there are {}", offers.map(|(name, _)| name).join(", "))))
}

/// One element of `Accept`: a media range and its quality in thousandths.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, quality)| quality.trim().parse().unwrap_or(0.0_f32));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000; NaN becomes 0")]
        let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        Some(Self { kind, subtype, quality })
    }

    fn covers(&self, media_type: &str) -> bool {
        let is = |range: &str, own: &str| range == "*" || range.eq_ignore_ascii_case(own);
        media_type.split_once('/').is_some_and(|(kind, subtype)| is(self.kind, kind) && is(self.subtype, subtype))
    }

    /// How many of its two parts are named.
    fn precision(&self) -> u8 {
        u8::from(self.kind != "*") + u8::from(self.subtype != "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case("", Some(Format::Json))]
    #[case("*/*", Some(Format::Json))]
    #[case("text/csv", Some(Format::Csv))]
    #[case("Text/CSV; header=present", Some(Format::Csv))]
    #[case("text/*", Some(Format::Csv))]
    #[case("application/x-ndjson", Some(Format::Ndjson))]
    #[case("application/*", Some(Format::Json))]
    #[case("*/*, text/csv", Some(Format::Csv))]
    #[case("text/csv;q=0.5, application/json;q=0.4", Some(Format::Csv))]
    #[case("text/csv;q=0.5, */*;q=0.8", Some(Format::Json))]
    #[case("application/json;q=0, */*", Some(Format::Csv))]
    #[case("text/html,application/xhtml+xml,*/*;q=0.8", Some(Format::Json))]
    #[case("text/html", None)]
    #[case("application/json;q=0", None)]
    fn the_client_is_asked(#[case] accept: &'static str, #[case] expected: Option<Format>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        assert_eq!(Format::accepted(&headers).ok(), expected);
    }
}
