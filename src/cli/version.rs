//! What this binary was made of, for `weir --version`. `build.rs` has noted it.

use std::sync::LazyLock;

/// The version, and a fact a line.
pub(super) static FACTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit: {}\nrustc: {}\ntarget: {}, {}\nfeatures: {}\nlibrdkafka: {}",
        env!("CARGO_PKG_VERSION"),
        env!("WEIR_COMMIT"),
        env!("WEIR_RUSTC"),
        env!("WEIR_TARGET"),
        env!("WEIR_PROFILE"),
        env!("WEIR_FEATURES"),
        crate::kafka::client_version()
    )
});
