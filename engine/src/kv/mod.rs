//! Who owns which KV page.
//!
//! The scheduler thread owns the pool and the prefix cache; transfer threads see the generations alone.

mod generations;
mod pages;
mod pool;
mod prefix_cache;
#[cfg(test)]
mod tests;

pub use generations::Generations;
pub use pages::Pages;
pub use pool::PagePool;
pub use prefix_cache::{KvEvent, PrefixCache};
