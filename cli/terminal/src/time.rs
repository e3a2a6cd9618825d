//! Ages as kubectl prints them.

/// Two units at most: 45s, 3m20s, 5h, 2d3h.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 && seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        () if minutes < 120 => format!("{minutes}m"),
        () if hours < 8 && minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 && hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let shown = [-5, 0, 119, 120, 200, 3599, 7200, 8000, 90_000, 200_000, 900_000].map(age);
        assert_eq!(shown, ["0s", "0s", "119s", "2m", "3m20s", "59m", "2h", "2h13m", "25h", "2d7h", "10d"]);
    }
}
