//! `shoal-fetch`: the files of a model, brought to a folder.

// The comments of options are printed as plain text.
#![allow(clippy::doc_markdown)]

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use shoal_fetch::{
    Class,
    fetch::{self, FetchError},
    progress::{Progress, report},
    server,
    source::Source,
    store::Store,
    wanted::Wanted,
};
use tokio::{net::TcpListener, signal::unix};

/// Between two lines of progress.
const REPORT: Duration = Duration::from_secs(10);

/// Brings files to a folder, checked and resumable; a file has its name only when it is whole.
///
/// Environment: SHOAL_FETCH_TOKEN is sent as bearer to https addresses. s3 addresses use AWS_ACCESS_KEY_ID,
/// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL. HTTPS_PROXY, HTTP_PROXY and NO_PROXY
/// are heeded.
///
/// Exit status: 0 all files are there; 1 another address, checksum, name or credential is needed; 75 trying again
/// later may help.
#[derive(Debug, Parser)]
#[command(name = "shoal-fetch", version)]
struct Options {
    /// Folder that the files go to; made if it is not there
    #[arg(long, value_name = "PATH")]
    folder: PathBuf,
    /// A file: its name in the folder, the SHA-256 of its content, and its https, http or s3 URL; can be repeated
    #[arg(long = "file", required = true, num_args = 3, value_names = ["NAME", "SHA256", "URL"])]
    files: Vec<String>,
    /// Files fetched at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Address that serves /progress and /metrics [default: off]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// What is logged to stderr: a level, or levels by module
    #[arg(long, value_name = "FILTER", env = "SHOAL_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log).context("--log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    let outcome = tokio::select! {
        outcome = run(&options) => outcome?,
        _ = terminate.recv() => return Ok(stopped()),
        _ = interrupt.recv() => return Ok(stopped()),
    };
    let Err(error) = outcome else { return Ok(ExitCode::SUCCESS) };
    // The form in which every program here says its last words.
    eprintln!("Error: {error}");
    Ok(ExitCode::from(if error.class() == Class::Invalid { 1 } else { 75 }))
}

fn stopped() -> ExitCode {
    tracing::info!("stopped; the next run goes on from here");
    ExitCode::from(75)
}

/// The outer error is a mistake on the command line, the inner one of the world.
async fn run(options: &Options) -> anyhow::Result<Result<(), FetchError>> {
    let wanted = options.files.chunks_exact(3).map(|file| Wanted::new(&file[0], &file[1], &file[2]));
    let wanted: Vec<Wanted> = wanted.collect::<Result<_, _>>().context("--file")?;
    let token = std::env::var("SHOAL_FETCH_TOKEN").ok().filter(|token| !token.trim().is_empty());
    let source = Source::new(Store::from_env()?, token)?;
    let listener = match options.listen {
        Some(address) => Some(TcpListener::bind(address).await.context("--listen")?),
        None => None,
    };
    std::fs::create_dir_all(&options.folder).with_context(|| options.folder.display().to_string())?;
    let files = match fetch::sizes(&wanted, &source).await {
        Ok(files) => files,
        Err(error) => return Ok(Err(error)),
    };
    if let Err(error) = fetch::room(&options.folder, &wanted, &files) {
        return Ok(Err(error));
    }
    if let Some(listener) = listener {
        tokio::spawn(server::serve(listener, Arc::clone(&files)));
    }
    tokio::spawn(tell(Arc::clone(&files)));
    let fetched = fetch::fetch(&options.folder, &wanted, &source, &files, options.parallel.into()).await;
    if fetched.is_ok() {
        let bytes = report(&files).bytes_total;
        tracing::info!(files = wanted.len(), bytes, folder = %options.folder.display(), "all there");
    }
    Ok(fetched)
}

/// A line of progress now and then.
async fn tell(files: Arc<[Progress]>) {
    let (began, first) = (Instant::now(), report(&files).bytes_done);
    loop {
        tokio::time::sleep(REPORT).await;
        let now = report(&files);
        let rate = (now.bytes_done.saturating_sub(first)) as f64 / began.elapsed().as_secs_f64();
        let percent = now.bytes_done * 100 / now.bytes_total.max(1);
        let mib = |bytes: u64| bytes >> 20;
        tracing::info!(
            phase = ?now.phase, percent, mib = mib(now.bytes_done), of = mib(now.bytes_total),
            mib_per_second = mib(rate as u64), files = now.files_done, "fetching"
        );
    }
}
