//! `weir top`: the console in a terminal.

mod screen;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::screen::{Move, Screen};
use super::{Usage, print};
use crate::admin::ask;
use crate::config::Config;
use crate::console::State;
use crate::terminal;

/// How long an answer is waited for; the first one may have to wait for Kafka and the database.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the worker is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often keys are looked for.
const KEYS_EVERY: Duration = Duration::from_millis(50);

/// Shows what a worker does and where its group stands, live
///
/// Asks the console of a running worker (docs/console.md). Keys: q ends it, Tab the next pool, arrows and page keys move, s sorts
/// by another column. Where the output is no terminal, it is printed once.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir top",
    "weir top --once",
    "kubectl port-forward POD 9465 & weir top --url http://localhost:9465",
))]
pub(super) struct Args {
    /// The worker's console [default: the configured console.listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print it once, as text
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let address = address(args.url.as_deref(), config)?;
    let state = look(&address, 0).await?;
    if args.once || !terminal::is_there() {
        print(&table::text(&state))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let drawn = terminal::take().context("draw on the terminal");
    let shown = match drawn {
        Ok(mut on) => tokio::select! {
            shown = show(&mut on, state, address) => shown,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        },
        Err(error) => Err(error),
    };
    terminal::give_back();
    shown.map(|()| ExitCode::SUCCESS)
}

/// Host and port of the console.
fn address(url: Option<&str>, config: &Config) -> anyhow::Result<String> {
    if let Some(url) = url {
        let wrong =
            || Usage(format!("--url {url:?} is no address of a worker: give one such as http://127.0.0.1:9465"));
        return Ok(ask::address_of(url).ok_or_else(wrong)?.to_owned());
    }
    match config.console.listen.address() {
        None => Err(Usage("`console.listen` is \"off\": say by --url which worker to ask".to_owned()).into()),
        Some(address) if address.port() == 0 => {
            let problem = "`console.listen` has port 0: say by --url where the worker listens, which its log tells";
            Err(Usage(problem.to_owned()).into())
        }
        Some(address) if address.ip().is_unspecified() => Ok(format!("localhost:{}", address.port())),
        Some(address) => Ok(address.to_string()),
    }
}

async fn look(address: &str, after_ms: i64) -> anyhow::Result<State> {
    let path = format!("/api/state?after={after_ms}");
    let advice = "is a worker running there, with its console on? `kubectl port-forward POD 9465` reaches a pod's, --url names another";
    let body =
        ask::get(address, &path, PATIENCE).await.with_context(|| format!("no console at {address}: {advice}"))?;
    serde_json::from_str(&body).with_context(|| format!("{address}{path}: not the answer of a console of this release"))
}

/// Asks again and again, and draws, until somebody wants to stop.
async fn show(on: &mut ratatui::DefaultTerminal, first: State, address: String) -> anyhow::Result<()> {
    let (told, mut answers) = mpsc::channel(1);
    let mut after_ms = newest(&first);
    let asking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let answer = look(&address, after_ms).await;
            after_ms = answer.as_ref().map_or(after_ms, newest);
            if told.send(answer).await.is_err() {
                return;
            }
        }
    });
    let mut screen = Screen::new(first);
    let mut keys = tokio::time::interval(KEYS_EVERY);
    let mut is_stale = true;
    let ended = loop {
        if is_stale && let Err(error) = on.draw(|frame| screen.draw(frame)) {
            break Err(error).context("draw on the terminal");
        }
        is_stale = tokio::select! {
            answer = answers.recv() => {
                match answer {
                    Some(Ok(state)) => screen.take(state),
                    Some(Err(_)) => screen.lost(),
                    None => break Ok(()),
                }
                true
            }
            _ = keys.tick() => match pressed(&mut screen) {
                Pressed::Stop => break Ok(()),
                Pressed::Something => true,
                Pressed::Nothing => false,
            },
        };
    };
    asking.abort();
    ended
}

fn newest(state: &State) -> i64 {
    let lasts = state.pools.iter().map(|pool| pool.points.last().map_or(0, |point| point.at_ms));
    lasts.max().unwrap_or(0)
}

/// What the keys ask for.
enum Pressed {
    Stop,
    Something,
    Nothing,
}

fn pressed(screen: &mut Screen) -> Pressed {
    let mut done = Pressed::Nothing;
    while event::poll(Duration::ZERO).unwrap_or(false) {
        match event::read() {
            Ok(Event::Key(key)) if terminal::is_stop(key) => return Pressed::Stop,
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Tab => screen.next_pool(),
                KeyCode::Char('s') => screen.sort_by_next(),
                KeyCode::Up => screen.scroll(Move::Rows(-1)),
                KeyCode::Down => screen.scroll(Move::Rows(1)),
                KeyCode::PageUp => screen.scroll(Move::Pages(-1)),
                KeyCode::PageDown => screen.scroll(Move::Pages(1)),
                KeyCode::Home => screen.scroll(Move::Top),
                _ => continue,
            },
            Ok(Event::Resize(..)) => {}
            Ok(_) => continue,
            Err(_) => return done,
        }
        done = Pressed::Something;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(listen: &str) -> Config {
        let mut config = Config::default();
        config.console.listen = listen.parse().unwrap();
        config
    }

    #[test]
    fn the_configured_console_is_asked_unless_another_is_named() {
        assert_eq!(address(None, &Config::default()).unwrap(), "127.0.0.1:9465");
        assert_eq!(address(None, &configured("0.0.0.0:7000")).unwrap(), "localhost:7000");
        assert_eq!(address(Some("http://other:1/"), &configured("off")).unwrap(), "other:1");
        for (url, listen) in
            [(None, "off"), (None, "127.0.0.1:0"), (Some("other"), "off"), (Some("https://a:1"), "off")]
        {
            let error = address(url, &configured(listen)).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--url"), "{error}");
        }
    }
}
