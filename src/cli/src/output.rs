//! Answers as tables, JSON or YAML.

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use lodge_client::ClientError;
use serde::Serialize;

/// Format of what a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's own objects.
    Json,
    /// The same in YAML.
    Yaml,
}

/// Prints objects: each a row of `cells` under `head`, or in full for programs.
pub(crate) fn list<T: Serialize>(
    format: Format,
    items: &[T],
    head: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<(), ClientError> {
    match format {
        Format::Table => {
            let mut table = bare();
            table.set_header(head.to_vec());
            for item in items {
                table.add_row(cells(item));
            }
            print_table(&table);
            Ok(())
        }
        Format::Json | Format::Yaml => structured(format, &items),
    }
}

/// Prints one object: its `rows` of label and value, or in full for programs.
pub(crate) fn object<T: Serialize>(
    format: Format,
    item: &T,
    rows: impl FnOnce(&T) -> Vec<(&'static str, String)>,
) -> Result<(), ClientError> {
    match format {
        Format::Table => {
            let mut table = bare();
            for (label, value) in rows(item) {
                table.add_row(vec![label.to_owned(), value]);
            }
            print_table(&table);
            Ok(())
        }
        Format::Json | Format::Yaml => structured(format, item),
    }
}

/// Prints any value as JSON (also for [`Format::Table`]) or YAML.
pub(crate) fn structured<T: Serialize>(format: Format, item: &T) -> Result<(), ClientError> {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(item).map_err(|error| error.to_string()),
        Format::Json | Format::Table => {
            serde_json::to_string_pretty(item).map_err(|error| error.to_string())
        }
    };
    println!("{}", text.map_err(ClientError::Usage)?.trim_end());
    Ok(())
}

/// Says what was done, to people only.
pub(crate) fn done(format: Format, text: &str) {
    if format == Format::Table {
        println!("{text}");
    }
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn print_table(table: &Table) {
    for line in table.lines() {
        println!("{}", line.trim());
    }
}
