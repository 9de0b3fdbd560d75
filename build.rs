//! Notes what the binary is built of, for `weir --version`.

use std::env;
use std::path::Path;
use std::process::Command;

/// What was built cannot be told otherwise.
const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WEIR_COMMIT");
    let is_release = var("PROFILE") == "release";
    note("COMMIT", &commit(is_release));
    note("RUSTC", &output(Command::new(var("RUSTC")).arg("--version")).unwrap_or_else(|| UNKNOWN.to_owned()));
    note("TARGET", &var("TARGET"));
    note("PROFILE", if is_release { "release" } else { "debug" });
    note("FEATURES", &features());
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn note(name: &str, value: &str) {
    println!("cargo::rustc-env=WEIR_{name}={value}");
}

fn output(command: &mut Command) -> Option<String> {
    let done = command.output().ok().filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).ok()?.trim().to_owned())
}

fn git(args: &[&str]) -> Option<String> {
    output(Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args))
}

fn features() -> String {
    let names = env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()));
    let mut names: Vec<String> = names.filter(|name| name != "default").collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// The commit, with a mark where something was changed since. Whoever builds without the repository, such as an image's build,
/// can give it by the variable `WEIR_COMMIT`.
fn commit(is_release: bool) -> String {
    let given = var("WEIR_COMMIT");
    if !given.is_empty() {
        return given;
    }
    // A release is built anew at every commit and change; a debug build would be too, only to tell this.
    if !is_release {
        return "not noted in a debug build".to_owned();
    }
    for changing in ["src", "migrations", "config", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={changing}");
    }
    of_checkout().unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Nothing: this is no checkout of weir's own, such as a tarball unpacked, be it inside of another repository.
fn of_checkout() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()? {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changed| !changed.is_empty());
    Some(if is_changed { format!("{commit}, with changes") } else { commit })
}
