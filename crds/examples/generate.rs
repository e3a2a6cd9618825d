//! Writes the `CustomResourceDefinitions` into `yaml/`, beside the types they are generated from.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for (file, text) in shoal_crds::definitions()? {
        let path = format!("{}/yaml/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(&path, text)?;
        println!("{path}");
    }
    Ok(())
}
