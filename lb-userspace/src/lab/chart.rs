//! Bar charts as text: pure.

const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// One bar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar<'a> {
    pub(super) label: &'a str,
    pub(super) count: u64,
    pub(super) weight: u16,
}

/// One line per bar; the longest bar fills `width` columns. Ends with the share and what weights promise.
pub(super) fn render(bars: &[Bar<'_>], width: usize) -> Vec<String> {
    let total: u64 = bars.iter().map(|bar| bar.count).sum();
    let weights: u64 = bars.iter().map(|bar| u64::from(bar.weight)).sum();
    let longest = bars.iter().map(|bar| bar.count).max().unwrap_or(0);
    let labels = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
    let digits = longest.to_string().len();
    bars.iter()
        .map(|bar| {
            format!(
                "{:labels$}  {:width$}  {:>digits$}  {:>3}%  (weight {}: {}%)",
                bar.label,
                block(bar.count, longest, width),
                bar.count,
                percent(bar.count, total),
                bar.weight,
                percent(u64::from(bar.weight), weights),
            )
        })
        .collect()
}

fn block(count: u64, longest: u64, width: usize) -> String {
    let eighths = (count * 8 * width as u64).checked_div(longest).unwrap_or(0);
    let full = usize::try_from(eighths / 8).unwrap_or(width).min(width);
    let mut bar = "█".repeat(full);
    if full < width && !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[(eighths % 8) as usize]);
    }
    bar
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_full_and_the_others_in_proportion() {
        let bars = [Bar { label: "b1", count: 200, weight: 4 }, Bar { label: "b2", count: 50, weight: 1 }];
        assert_eq!(
            render(&bars, 8),
            ["b1  ████████  200   80%  (weight 4: 80%)", "b2  ██         50   20%  (weight 1: 20%)"]
        );
    }

    #[test]
    fn fractions_show_as_eighths() {
        assert_eq!(block(3, 16, 4), "▊");
        assert_eq!(block(1, 3, 4), "█▎");
    }

    #[test]
    fn nothing_at_all_is_an_empty_chart() {
        assert_eq!(
            render(&[Bar { label: "b1", count: 0, weight: 0 }], 2),
            ["b1      0    0%  (weight 0: 0%)"]
        );
        assert!(render(&[], 10).is_empty());
    }
}
