//! `/progress` and `/metrics`: numbers only, so they need no secret.

use std::{fmt::Write as _, sync::Arc};

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::progress::{Progress, Report, report};

/// Serves until dropped.
pub async fn serve(listener: TcpListener, files: Arc<[Progress]>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/progress", get(async |State(files): State<Arc<[Progress]>>| Json(report(&files))))
        .route("/metrics", get(metrics))
        .with_state(files);
    axum::serve(listener, router).await
}

async fn metrics(State(files): State<Arc<[Progress]>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page(&report(&files)))
}

fn page(report: &Report) -> String {
    let mut page = String::new();
    for (name, help, value) in [
        ("bytes", "Bytes of the model that are to be there.", report.bytes_total),
        ("bytes_done", "Bytes of the model that are there.", report.bytes_done),
        ("files", "Files of the model that are to be there.", report.files as u64),
        ("files_done", "Files of the model that are there and checked.", report.files_done as u64),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "# HELP shoal_fetch_{name} {help}\n# TYPE shoal_fetch_{name} gauge");
        let _ = writeln!(page, "shoal_fetch_{name} {value}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_help_a_type_and_a_value() {
        let page = page(&report(&[Progress::of(7)]));
        assert!(page.contains("# TYPE shoal_fetch_bytes gauge\nshoal_fetch_bytes 7\n"), "{page}");
        assert_eq!(page.matches("# HELP").count(), 4);
    }
}
