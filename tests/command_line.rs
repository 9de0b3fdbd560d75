//! What the command line tells of itself: its version, its completions, its man pages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COMMANDS: [&str; 6] = ["run", "check", "publish", "dead", "completions", "config"];

fn weir(args: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_weir")).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "weir {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("weir-command-line-{}", uuid::Uuid::new_v4())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_version_tells_what_the_binary_is_made_of() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(weir(&["-V"]), format!("weir {version}\n"));
    let told = weir(&["--version"]);
    let mut lines = told.lines();
    assert_eq!(lines.next(), Some(format!("weir {version}").as_str()));
    let fact = |name: &str| {
        let fact = told.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        fact.unwrap_or_else(|| panic!("no {name} in {told}")).to_owned()
    };
    assert!(fact("rustc").starts_with("rustc 1."), "{told}");
    assert!(fact("target").starts_with(std::env::consts::ARCH), "{told}");
    assert!(fact("features").contains("postgres"), "{told}");
    assert!(fact("librdkafka").starts_with(|first: char| first.is_ascii_digit()), "{told}");
    let commit = fact("commit");
    let (hash, _) = commit.split_once(',').unwrap_or((&commit, ""));
    let is_commit = hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_debug = fact("target").ends_with("debug") && commit == "not noted in a debug build";
    assert!(is_commit || is_debug || commit == "unknown" || std::env::var_os("WEIR_COMMIT").is_some(), "{told}");
}

/// And by jemalloc with weir's settings: a name that it does not look for would be taken for nothing, without a word.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[test]
fn the_binary_allocates_by_jemalloc() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let told = command.arg("-V").env("MALLOC_CONF", "stats_print:true").output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("Global variable malloc_conf: \"dirty_decay_ms:1000\""), "{told}");
}

#[test]
fn completions_name_every_command_in_the_shells_own_language() {
    for (shell, begin) in [("bash", "_weir()"), ("zsh", "#compdef weir"), ("fish", "complete -c weir")] {
        let script = weir(&["completions", shell]);
        assert!(script.contains(begin), "{shell}: {script}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: no {command}");
        }
    }
    // The one shell that is surely here reads it.
    let script = format!("{}\ncomplete -p weir", weir(&["completions", "bash"]));
    let read = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success() && told.contains("-F _weir"), "{told}{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn every_command_has_a_man_page_of_its_own() {
    let folder = Folder::new();
    let path = folder.0.join("new/man1");
    weir(&["man", path.to_str().unwrap()]);
    let pages = ["weir.1".to_owned()].into_iter().chain(COMMANDS.map(|command| format!("weir-{command}.1")));
    for page in pages.chain(["weir-dead-list.1".to_owned()]) {
        let text = std::fs::read_to_string(path.join(&page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let file = folder.0.join("file");
    std::fs::write(&file, "").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_weir")).arg("man").arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && told.contains(file.to_str().unwrap()), "{told}");
}

/// What `build.rs` notes as the commit of a release that is built in a folder.
fn commit_of(folder: &Path, given: &str) -> String {
    let program = folder.join("noted");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let mut compile = Command::new("rustc");
    compile.args(["--edition", "2024", "-o"]).arg(&program).arg(source).env("CARGO_MANIFEST_DIR", folder);
    assert!(compile.status().unwrap().success());
    let mut run = Command::new(&program);
    run.current_dir(folder).envs([("PROFILE", "release"), ("RUSTC", "rustc"), ("WEIR_COMMIT", given)]);
    let told = String::from_utf8(run.output().unwrap().stdout).unwrap();
    let commit = told.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=WEIR_COMMIT="));
    commit.unwrap_or_else(|| panic!("no commit in {told}")).to_owned()
}

fn git(folder: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
    let done = Command::new("git").arg("-C").arg(folder).args(who).args(args).output().unwrap();
    assert!(done.status.success(), "git {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_release_knows_its_commit_and_whether_anything_was_changed_and_a_tarball_says_that_it_does_not() {
    let folder = Folder::new();
    let checkout = &folder.0;
    std::fs::create_dir(checkout).unwrap();
    assert_eq!(commit_of(checkout, ""), "unknown");
    assert_eq!(commit_of(checkout, "abc"), "abc", "an image's build can tell it");
    std::fs::write(checkout.join("file"), "one").unwrap();
    git(checkout, &["init", "-q"]);
    git(checkout, &["add", "file"]);
    git(checkout, &["commit", "-q", "-m", "first"]);
    let commit = git(checkout, &["rev-parse", "HEAD"]);
    assert_eq!(commit_of(checkout, ""), commit);
    std::fs::write(checkout.join("file"), "two").unwrap();
    assert_eq!(commit_of(checkout, ""), format!("{commit}, with changes"));
    let inside = checkout.join("unpacked");
    std::fs::create_dir(&inside).unwrap();
    assert_eq!(commit_of(&inside, ""), "unknown", "another's repository");
}
