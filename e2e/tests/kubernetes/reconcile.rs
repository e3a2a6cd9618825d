//! From what is asked for to what is there.

use anyhow::{Result, ensure};
use shoal_e2e::kubernetes::{in_namespace, small};

/// Several pages of prompt, so that prefilling elsewhere pays.
fn long_prompt() -> String {
    "Tell me about the sea. ".repeat(40)
}

#[tokio::test]
async fn reconcile_from_apply_to_an_answer_whose_prompt_another_instance_read() -> Result<()> {
    in_namespace("reconcile-answer", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?.clone();
        chat.settled().await?;
        let answer = chat.ask(&long_prompt(), 16).await?;
        let cost = &answer["shoal"];
        let (prefill, decode) = (chat.instance_of("prefill").await?, chat.instance_of("decode").await?);
        assert_eq!(cost["prefill_instance"].as_str(), prefill.metadata.name.as_deref(), "{answer}");
        assert_eq!(cost["decode_instance"].as_str(), decode.metadata.name.as_deref(), "{answer}");
        ensure!(cost["kv_bytes"].as_u64() > Some(0), "{answer}");
        Ok(())
    })
    .await
}
