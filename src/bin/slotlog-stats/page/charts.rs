//! Histograms.

use std::fmt::Write as _;

use slotlog::{Bucket, Distribution};

use super::super::common::figures::{count, percent, ratio};
use super::escape;

/// Buckets of a chart. Those beyond are put into the last.
const MOST: usize = 32;

/// A histogram by powers of two. With `bytes`, a second bar says what the entries of a bucket take.
pub fn histogram(
    title: &str,
    distribution: &Distribution,
    show: impl Fn(u64) -> String,
    odd_from: Option<u64>,
    bytes: bool,
) -> String {
    if distribution.min == distribution.max {
        let all = escape(&show(distribution.min));
        return format!(
            "<div class=\"chart\"><div class=\"title\">{title} <small>of {} entries</small></div>\
             <div class=\"same\"><strong>{all}</strong> each</div></div>",
            count(distribution.count)
        );
    }
    let buckets = with_gaps(&distribution.buckets);
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    let most_bytes = buckets.iter().map(|bucket| bucket.sum).max().unwrap_or(0);
    let mut bars = String::new();
    for bucket in &buckets {
        let range = if bucket.from == bucket.to {
            show(bucket.from)
        } else {
            format!("{} to {}", show(bucket.from), show(bucket.to))
        };
        let odd = if odd_from.is_some_and(|odd| bucket.to >= odd) { " odd" } else { "" };
        let mut title = format!("{range}: {} entries", count(bucket.count));
        let mut inner = bar(bucket.count, most, odd);
        if bytes {
            let _ = write!(title, ", {} of the bytes", percent(ratio(bucket.sum, distribution.sum)));
            inner.push_str(&bar(bucket.sum, most_bytes, if odd.is_empty() { " bytes" } else { odd }));
        }
        let _ = write!(bars, "<b title=\"{}\">{inner}</b>", escape(&title));
    }
    let keys = if bytes {
        "<span class=\"quiet\"><i class=\"key p-alive\"></i>entries<i class=\"key p-index\"></i>bytes</span>"
    } else {
        ""
    };
    let middle = if buckets.len() > 4 { show(buckets[buckets.len() / 2].from) } else { String::new() };
    let facts = format!("half at most {}, 99 % at most {}", show(distribution.p50), show(distribution.p99));
    format!(
        "<div class=\"chart\"><div class=\"title\">{title}{keys} <small>{}</small></div>\
         <div class=\"bars\">{bars}</div>\
         <div class=\"axis\"><span>{}</span><span>{}</span><span>{}</span></div></div>",
        escape(&facts),
        escape(&show(distribution.min)),
        escape(&middle),
        escape(&show(distribution.max))
    )
}

/// How many lines searches read.
pub fn searches(lengths: &[u64; 8], average: f64) -> String {
    let (all, most) = (lengths.iter().sum(), lengths.iter().copied().max().unwrap_or(0));
    let mut bars = String::new();
    for (length, &keys) in (1..).zip(lengths) {
        let slow = if length >= 4 { " slow" } else { "" };
        let more = if length == lengths.len() { " or more" } else { "" };
        let (keys_shown, share) = (count(keys), percent(ratio(keys, all)));
        let _ =
            write!(bars, "<b title=\"{length}{more} lines: {keys_shown} keys, {share}\">{}</b>", bar(keys, most, slow));
    }
    format!(
        "<div class=\"chart\"><div class=\"title\">Lines per search <small>{average:.2} on average</small></div>\
         <div class=\"bars\">{bars}</div><div class=\"axis\"><span>1</span><span>8 or more</span></div></div>"
    )
}

fn bar(part: u64, most: u64, class: &str) -> String {
    let some = if part > 0 { "some" } else { "none" };
    format!("<i class=\"{some}{class}\" style=\"height:{:.1}%\"></i>", 100.0 * ratio(part, most))
}

/// The buckets with the empty ones between them.
fn with_gaps(buckets: &[Bucket]) -> Vec<Bucket> {
    let mut all: Vec<Bucket> = Vec::new();
    for &bucket in buckets {
        while let Some(last) = all.last().copied().filter(|last| last.to + 1 < bucket.from && all.len() < MOST) {
            let mut gap = last;
            (gap.from, gap.to, gap.count, gap.sum) = (last.to + 1, last.to.saturating_mul(2) | 1, 0, 0);
            all.push(gap);
        }
        all.push(bucket);
    }
    all
}
