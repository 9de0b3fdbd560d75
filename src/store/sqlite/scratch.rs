//! A file of its own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::address;
use crate::config;
use crate::store::{Error, Fault, Result};

/// What SQLite keeps beside a file, and the file.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether there is no file of that name, nor anything that SQLite would take for its own.
pub(super) fn is_unused(store: &config::Store) -> Result<()> {
    let options = address::options(store)?;
    for path in SUFFIXES.map(|suffix| beside(options.get_filename(), suffix)) {
        if path.symlink_metadata().is_ok() {
            let message = format!("{} is there already: name a new file, which will be removed", path.display());
            return Err(Error { fault: Fault::Fatal, action: "make a scratch database", message });
        }
    }
    Ok(())
}

pub(super) fn remove(store: &config::Store) -> Result<()> {
    let options = address::options(store)?;
    for path in SUFFIXES.map(|suffix| beside(options.get_filename(), suffix)) {
        match std::fs::remove_file(&path) {
            Err(told) if told.kind() != ErrorKind::NotFound => {
                let message = format!("{}: {told}", path.display());
                return Err(Error { fault: Fault::Hold, action: "remove the scratch database", message });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_there_is_refused_however_its_address_is_spelled() {
        let folder = std::env::temp_dir().join(format!("weir-scratch-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("my app.db"), "mine").unwrap();
        std::fs::write(folder.join("other.db-wal"), "mine").unwrap();
        let folder_name = folder.display();
        for url in [
            format!("sqlite://{folder_name}/my%20app.db"),
            format!("sqlite:{folder_name}/my app.db?mode=rwc"),
            format!("sqlite://{folder_name}/other.db"),
        ] {
            let store = config::Store { url: url.as_str().into(), ..config::Store::default() };
            let refused = crate::store::Scratch::make(&store, "unused").await.unwrap_err();
            assert!(refused.message.contains("is there already"), "{url}: {refused}");
            assert_eq!(refused.fault, Fault::Fatal);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
