//! Writes the `CustomResourceDefinitions` into `yaml/`, beside the types they are generated from.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/yaml/servingclusters.yaml");
    std::fs::write(path, shoal_crds::servingclusters_yaml()?)?;
    println!("{path}");
    Ok(())
}
