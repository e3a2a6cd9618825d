//! How much of a bare socket copy the KV transfer reaches, over loopback, with the pages of SmolLM2-135M.
//!
//! Both move the same pages between two arenas with the same number of sockets, in turns; the figures are
//! the medians of the turns. `--json` prints one JSON object.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use shoal_engine::kv::Generations;
use shoal_engine::request::Slot;
use shoal_engine::transfer::{
    Expected, Inbox, InboxLimits, Outbox, OutboxLimits, PageJob, Rate, TransferTable,
};
use shoal_model::{KvDtype, KvGeometry, PageArena};

const GEOMETRY: KvGeometry =
    KvGeometry { layers: 30, kv_heads: 3, head_dim: 64, page_tokens: 64, dtype: KvDtype::F16 };

#[derive(Debug, Parser)]
struct Options {
    /// Pages moved in each turn, 1.4 MiB each
    #[arg(long, default_value_t = 128)]
    pages: usize,
    /// Turns of each kind
    #[arg(long, default_value_t = 9)]
    turns: usize,
    /// Data sockets, for both kinds
    #[arg(long, default_value_t = 1)]
    sockets: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.pages > 0 && options.turns > 0 && options.sockets > 0, "all counts must be above 0");
    let source = PageArena::new(options.pages, GEOMETRY.page_bytes())?;
    let target = PageArena::new(options.pages, GEOMETRY.page_bytes())?;
    for page in 0..options.pages as u32 {
        let mut bytes = source.write(page).context("a free page")?;
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i as u32 ^ page) as u8);
        // Touched, so that no turn pays for fresh memory.
        target.write(page).context("a free page")?.fill(1);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let mut shoal = runtime.block_on(async { Transfer::open(&source, &target, options.sockets).await })?;
    let mut bare = BareCopy::open(options.sockets)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=options.turns {
        theirs.push(bare.turn(&source, &target)?);
        ours.push(runtime.block_on(shoal.turn())?);
    }
    // The first turn opens sockets and grows their buffers.
    let bytes = (options.pages * GEOMETRY.page_bytes()) as f64;
    let rate = |turns: &mut Vec<Duration>| {
        turns.remove(0);
        turns.sort();
        bytes / turns[turns.len() / 2].as_secs_f64()
    };
    let (ours, theirs) = (rate(&mut ours), rate(&mut theirs));
    let ratio = ours / theirs;
    if options.json {
        println!(
            "{{\"transfer_bytes_per_second\":{ours:.0},\"bare_bytes_per_second\":{theirs:.0},\"ratio\":{ratio:.3},\
             \"page_bytes\":{},\"header_bytes\":{},\"sockets\":{}}}",
            GEOMETRY.page_bytes(),
            shoal_wire::frame::HEADER_BYTES,
            options.sockets
        );
    } else {
        println!("KV transfer   {:8.2} GB/s", ours / 1e9);
        println!("bare copy     {:8.2} GB/s", theirs / 1e9);
        println!("ratio         {ratio:8.2}");
    }
    Ok(())
}

/// Pages through the real ends: authenticated, checked, summed.
struct Transfer {
    source: Arc<PageArena>,
    table: Arc<TransferTable>,
    generations: Generations,
    outbox: Outbox,
    inbox: Inbox,
}

impl Transfer {
    async fn open(source: &Arc<PageArena>, target: &Arc<PageArena>, sockets: usize) -> Result<Self> {
        let key = [7; 32];
        let rate = Arc::new(Rate::default());
        let generations = Generations::new(target.pages());
        let table = TransferTable::new(Arc::clone(target), generations.clone(), GEOMETRY, Arc::clone(&rate));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let inbox = Inbox::start(listener, key, Arc::clone(&table), InboxLimits::default())?;
        let limits = OutboxLimits { lanes_per_peer: sockets, ..OutboxLimits::default() };
        let outbox = Outbox::new(key, GEOMETRY, limits, rate);
        Ok(Self { source: Arc::clone(source), table, generations, outbox, inbox })
    }

    async fn turn(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let pages = self.source.pages();
        let slots: Vec<Slot> = (0..pages as u32).map(|page| self.generations.slot(page)).collect();
        let tokens = pages * GEOMETRY.page_tokens;
        let mut incoming = self.table.open(Expected { first_token: 0, tokens, slots: slots.clone() })?;
        let mut outgoing = self.outbox.open(&self.inbox.address().to_string(), incoming.id());
        for slot in slots {
            let page = self.source.read(slot.page).context("nobody writes the source")?;
            let first_token = slot.page as usize * GEOMETRY.page_tokens;
            outgoing.send(PageJob { page, slot, first_token, tokens: GEOMETRY.page_tokens });
        }
        while incoming.landing().pages < pages {
            tokio::select! {
                landing = incoming.changed() => if let Some(why) = landing.failed { bail!(why) },
                state = outgoing.changed() => if let Some(why) = state.failed { bail!(why) },
            }
        }
        Ok(begun.elapsed())
    }
}

/// The same bytes through plain sockets: write on one end, read on the other.
struct BareCopy(Vec<(TcpStream, TcpStream)>);

impl BareCopy {
    fn open(sockets: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let pair = |_| {
            let sender = TcpStream::connect(listener.local_addr()?)?;
            sender.set_nodelay(true)?;
            Ok((sender, listener.accept()?.0))
        };
        (0..sockets).map(pair).collect::<Result<_>>().map(Self)
    }

    fn turn(&mut self, source: &Arc<PageArena>, target: &Arc<PageArena>) -> Result<Duration> {
        let begun = Instant::now();
        let count = self.0.len();
        std::thread::scope(|scope| {
            let mut ends = Vec::new();
            for (lane, (sender, receiver)) in self.0.iter_mut().enumerate() {
                let pages = move || (lane as u32..source.pages() as u32).step_by(count);
                ends.push(scope.spawn(move || -> Result<()> {
                    for page in pages() {
                        sender.write_all(&source.read(page).context("nobody writes the source")?)?;
                    }
                    Ok(())
                }));
                ends.push(scope.spawn(move || -> Result<()> {
                    for page in pages() {
                        receiver.read_exact(&mut target.write(page).context("nobody holds the target")?)?;
                    }
                    Ok(())
                }));
            }
            ends.into_iter().try_for_each(|end| end.join().map_err(|_| anyhow::anyhow!("a copy panicked"))?)
        })?;
        Ok(begun.elapsed())
    }
}
