//! Columns of text, two spaces apart, nothing behind the last.

/// Characters that a cut column keeps at least.
const NARROWEST: usize = 8;
const GAP: usize = 2;

#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// Columns of the terminal on standard output; none when it is something else, which takes lines of any length.
pub fn width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0))
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Has no row below its head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Fits the table into a width: first the columns named here go, in this order and only as far as needed,
    /// then the last column is cut.
    #[must_use]
    pub fn within(mut self, width: Option<usize>, expendable: &[&str]) -> Self {
        let Some(width) = width else { return self };
        for name in expendable {
            if self.total() <= width {
                return self;
            }
            self.drop_column(name);
        }
        let (total, last) = (self.total(), self.widths().len().saturating_sub(1));
        if total > width {
            let room = self.widths().last().map_or(0, |found| found.saturating_sub(total - width));
            for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(last)) {
                *cell = cut(cell, room.max(NARROWEST));
            }
        }
        self
    }

    fn drop_column(&mut self, name: &str) {
        let Some(column) = self.rows[0].iter().position(|cell| cell == name) else { return };
        for row in self.rows.iter_mut().filter(|row| row.len() > column) {
            row.remove(column);
        }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    fn total(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}{:GAP$}", ""));
            writeln!(f, "{}", cells.collect::<Vec<_>>().concat().trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "NODE", "READY", "WHY"]);
        let row = ["a-long-name", "node-1", "True", "because of a long story"];
        table.row(row.map(ToOwned::to_owned).to_vec());
        table
    }

    #[test]
    fn columns_align_and_lines_do_not_end_in_blanks() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(vec!["a-long-name".to_owned(), "True".to_owned()]);
        assert_eq!(table.to_string(), "NAME         READY\na-long-name  True\n");
    }

    #[test]
    fn what_does_not_fit_loses_the_columns_that_matter_least_and_then_the_end_of_the_last() {
        let whole = table().to_string();
        let long = whole.lines().map(str::len).max().unwrap_or(0);
        assert_eq!(table().within(None, &["NODE"]).to_string(), whole);
        assert_eq!(table().within(Some(long), &["NODE"]).to_string(), whole);
        assert_eq!(
            table().within(Some(long - 1), &["NODE", "READY"]).to_string(),
            "NAME         READY  WHY\na-long-name  True   because of a long story\n"
        );
        assert_eq!(
            table().within(Some(30), &["NODE"]).to_string(),
            "NAME         READY  WHY\na-long-name  True   because o…\n"
        );
    }
}
