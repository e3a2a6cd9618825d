//! Lists, page by page and with an end.

use std::fmt::Debug;

use kube::{Api, Error, api::ListParams};
use serde::de::DeserializeOwned;

/// Objects in an answer.
const PAGE: u32 = 250;
/// Objects of one list altogether; more than a fleet of 64 instances has of anything but events.
const MOST: usize = 4000;

/// Objects that the parameters select, at most `MOST`.
pub(crate) async fn pages<K>(api: &Api<K>, params: ListParams) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if found.len() < MOST => params.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}
