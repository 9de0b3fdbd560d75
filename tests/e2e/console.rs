//! The console of a real worker: what it tells, whom it answers, what a browser shows of it, and `weir top`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use super::dead::run;
use super::devtools::Browser;
use super::load::{Plan, publish};
use super::picture::{contrast, luminance, parse};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

/// What would take the page over if anything of it became markup.
const HOSTILE: &str = "<img src=x onerror=\"window.taken=1\"><script>window.taken=1</script><b id=taken>";

/// A configuration whose console listens at a free port.
fn configured(world: &World, pool_lines: &str) -> String {
    world.config(pool_lines) + "\n[console]\nlisten = \"127.0.0.1:0\"\n"
}

/// Where a worker's console listens.
async fn console(worker: &Worker) -> String {
    until("the console to listen", PATIENCE, async || {
        let log = worker.log();
        (log.contains("console listening"), log)
    })
    .await;
    let log = worker.log();
    let line = log.lines().find(|line| line.contains("console listening")).expect("it was there a moment ago");
    line.split_once("address=").unwrap().1.trim().to_owned()
}

/// A request as it is written; status, head in lower case, and body.
fn asked(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

fn get(address: &str, path: &str) -> (u16, String, String) {
    asked(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

fn told(address: &str, path: &str) -> Value {
    let (status, _, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The state of the only pool, once it is as it should be.
async fn pool_when(address: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut pool = Value::Null;
    until(what, PATIENCE, async || {
        pool = told(address, "/api/state")["pools"][0].clone();
        pool["points"] = Value::Null;
        (is_so(&pool), pool.to_string())
    })
    .await;
    pool
}

fn sum(pool: &Value, name: &str) -> i64 {
    pool["partitions"].as_array().unwrap().iter().map(|one| one[name].as_i64().unwrap_or(0)).sum()
}

fn states(pool: &Value) -> Vec<&str> {
    pool["partitions"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap_or("-")).collect()
}

/// Sends a record that cannot be decoded, and waits until it is a dead row.
async fn send_hostile(world: &World) {
    let malformed = async || world.count("SELECT count(*) FROM weir_dead WHERE reason = 'malformed'").await;
    let before = malformed().await;
    let topic = world.topic.clone();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = kafka().create().unwrap();
        producer.send(BaseRecord::to(&topic).partition(0).key(HOSTILE).payload(HOSTILE)).unwrap();
        producer.flush(PATIENCE).unwrap();
    })
    .await
    .unwrap();
    until("the hostile record to be a dead row", PATIENCE, async || {
        let rows = malformed().await;
        (rows > before, rows)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_tells_where_the_whole_group_stands_and_what_is_held() {
    let world = World::alone(4).await;
    let config = configured(&world, "rate = \"100000/s\"");
    let first = Worker::start_configured(&world, &config).await;
    first.owns(4).await;
    let address = console(&first).await;
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(120, 2_000) }).await;
    world.drained(PATIENCE).await;
    let pool = pool_when(&address, "the console to see everything settled", |pool| {
        (pool["fleet"]["lag"].as_i64(), sum(pool, "lag")) == (Some(0), 0)
            && sum(pool, "next_offset") == published.records as i64
    })
    .await;
    assert_eq!((pool["assigned"].as_i64(), pool["group"].as_str()), (Some(4), Some(world.pool.as_str())));
    assert_eq!((pool["rate_per_s"].as_f64(), pool["fleet"]["error"].as_str()), (Some(100_000.0), None));
    let claims = first.claims();
    for one in pool["partitions"].as_array().unwrap() {
        assert_eq!((one["place"].as_str(), one["topic"].as_str()), (Some("here"), Some(world.topic.as_str())));
        assert!(claims.contains(&one["owner"].as_str().unwrap().parse().unwrap()), "{one}");
        assert!(one["progress_ms"].as_i64().unwrap() > 1_700_000_000_000 && one["batch"].as_i64() > Some(0), "{one}");
    }

    // A second worker with a console of its own takes two of them, and each shows all four.
    let second = Worker::start_configured(&world, &config).await;
    second.owns(2).await;
    for address in [address.clone(), console(&second).await] {
        let places = |pool: &Value, place: &str| {
            pool["partitions"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|one| one["place"] == place && one["epoch"].is_i64())
                .count()
        };
        pool_when(&address, "two partitions here and two elsewhere", |pool| {
            (places(pool, "here"), places(pool, "elsewhere")) == (2, 2)
        })
        .await;
    }
    drop(second);
    first.owns(4).await;

    // Held: each partition says so and why, and how far it is behind.
    world.sql("ALTER TABLE messages RENAME TO hidden").await;
    let more = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(121, 1_000) }).await;
    let pool = pool_when(&address, "all partitions to be held with their lag", |pool| {
        states(pool) == ["held"; 4] && sum(pool, "lag") == more.records as i64 && pool["lag"] == sum(pool, "lag")
    })
    .await;
    assert_eq!((pool["held"].as_i64(), pool["fleet"]["lag"].as_i64().is_some()), (Some(4), true));
    assert!(pool["partitions"][0]["why"].as_str().unwrap().contains("messages"), "{pool}");
    assert!(pool["lag_ms"].as_i64().unwrap() > 0, "{pool}");
    let config_file = &config;
    let url = format!("http://{address}");
    let (code, text, err) = run(&world, config_file, &["top", "--once", "--url", &url]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("held 4") && text.contains("! held: ") && text.contains(&world.topic), "{text}");
    world.sql("ALTER TABLE hidden RENAME TO messages").await;
    world.drained(PATIENCE).await;

    // Away: it is said so, soon, and what the process knows is told all the same.
    world.service("stop", "postgres");
    let pool =
        pool_when(&address, "the console to say that the database is away", |pool| pool["fleet"]["error"].is_string())
            .await;
    assert_eq!(pool["partitions"].as_array().unwrap().len(), 4, "what was seen before stays");
    let (status, _, body) = get(&address, &format!("/api/dead?pool={}", world.pool));
    assert_eq!(status, 503, "{body}");
    world.service("start", "postgres");
    pool_when(&address, "the console to see the group again", |pool| pool["fleet"]["error"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_are_paged_shown_and_changed_by_nobody() {
    let world = World::new(2).await;
    let worker = Worker::start_configured(&world, &configured(&world, "")).await;
    worker.owns(2).await;
    let address = console(&worker).await;
    let published = publish(&world, Plan { poison_per_mille: 100, ..Plan::new(122, 1_200) }).await;
    world.drained(PATIENCE).await;
    send_hostile(&world).await;
    let dead = world.count("SELECT count(*) FROM weir_dead").await;
    assert!(dead > 60 && dead as usize > published.dead.len(), "{dead}: too few for two pages");

    let (mut seen, mut skip) = (Vec::new(), 0);
    loop {
        let page = told(&address, &format!("/api/dead?pool={}&skip={skip}", world.pool));
        let rows = page["rows"].as_array().unwrap().clone();
        skip += rows.len();
        seen.extend(rows);
        if page["more"] == json!(false) {
            break;
        }
    }
    let mut ids: Vec<&str> = seen.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(seen.windows(2).all(|pair| pair[0]["created_ms"].as_i64() >= pair[1]["created_ms"].as_i64()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((seen.len() as i64, ids.len() as i64), (dead, dead), "each once");
    assert!(seen.iter().all(|row| row.get("value").is_none()), "a list has no payloads");
    let of_reason = told(&address, &format!("/api/dead?pool={}&reason=refused", world.pool));
    assert!(of_reason["rows"].as_array().unwrap().iter().all(|row| row["reason"] == "refused"));

    let hostile = seen.iter().find(|row| row["key"] == HOSTILE).expect("the hostile row is listed");
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("pool", world.pool.as_str()),
            ("id", hostile["id"].as_str().unwrap()),
            ("kind", hostile["kind"].as_str().unwrap()),
        ])
        .finish();
    let row = told(&address, &format!("/api/dead/row?{query}"));
    assert_eq!((row["value"].as_str(), row["value_bytes"].as_u64()), (Some(HOSTILE), Some(HOSTILE.len() as u64)));
    assert_eq!(get(&address, "/api/dead?pool=nobody").0, 404);
    assert_eq!(get(&address, &format!("/api/dead/row?pool={}&id=nobody", world.pool)).0, 404);

    // Nothing but looking: other methods, other names, other sites.
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/", "/api/state", "/api/dead", "/api/dead/row"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            assert_eq!(asked(&address, &request).0, 405, "{method} {path}");
        }
    }
    for host in ["evil.example", "localhost.evil.example:80", ""] {
        for path in ["/", "/api/state", "/page.js"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(asked(&address, &request).0, 403, "{host} {path}");
        }
    }
    let across = format!(
        "GET /api/state HTTP/1.1\r\nHost: {address}\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(asked(&address, &across).0, 403);
    let (_, head, page) = get(&address, "/");
    for line in ["content-security-policy: default-src 'none'; script-src 'self'", "x-frame-options: deny", "nosniff"] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    assert!(!head.contains("access-control-allow"), "{head}");
    let (_, _, state) = get(&address, "/api/state");
    for secret in ["postgres://", "redis://", "password"] {
        assert!(!state.contains(secret) && !page.contains(secret), "{secret} is told");
    }
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, dead, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_console_listens_is_as_it_was_said() {
    let world = World::new(1).await;
    let off = world.config("") + "\n[console]\nlisten = \"off\"\n";
    let without = Worker::start_configured(&world, &off).await;
    without.owns(1).await;
    assert!(!without.log().contains("console listening"));
    drop(without);
    // Not said: two workers of one machine do not meet, whoever else has the usual address.
    let (first, second) = (Worker::start(&world).await, Worker::start(&world).await);
    assert_ne!(console(&first).await, console(&second).await);
    // Said: one that is taken ends the worker.
    let taken = format!("{}\n[console]\nlisten = \"{}\"\n", world.config(""), console(&first).await);
    let (code, _, err) = run(&world, &taken, &["run"]);
    assert!(code == 1 && err.contains("set console.listen to a free address"), "{code}: {err}");
    let open = world.config("") + "\n[console]\nlisten = \"0.0.0.0:0\"\n";
    let (code, _, err) = run(&world, &open, &["run"]);
    assert!(code == 2 && err.contains("no login") && err.contains("console.hosts"), "{code}: {err}");
    let (code, _, err) = run(&world, &world.config(""), &["top", "--once", "--url", "http://127.0.0.1:1"]);
    assert!(code == 1 && err.contains("no console at 127.0.0.1:1") && err.contains("port-forward"), "{code}: {err}");
}

/// What a terminal of 24 lines shows of a command that is given keys; its exit code too.
fn in_a_terminal(command: &Command, keys: &[u8], wait_for: &str) -> (Option<i32>, String) {
    let quoted: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|arg| format!("'{}'", arg.to_str().unwrap()))
        .collect();
    let line = format!("stty rows 24 cols 80; exec {}", quoted.join(" "));
    let mut script = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("script is installed: it is in util-linux");
    let (mut stdin, mut stdout) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut shown, mut buffer, mut is_sent) = (Vec::new(), [0; 4096], false);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        shown.extend_from_slice(&buffer[..count]);
        if !is_sent && String::from_utf8_lossy(&shown).contains(wait_for) {
            stdin.write_all(keys).unwrap();
            is_sent = true;
        }
        if count == 0 {
            break;
        }
    }
    (script.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_top_draws_in_a_terminal_and_gives_it_back() {
    let world = World::new(3).await;
    let config = configured(&world, "");
    let worker = Worker::start_configured(&world, &config).await;
    worker.owns(3).await;
    let url = format!("http://{}", console(&worker).await);
    let top = world.weir_with(&config, &["top", "--url", &url]);
    for keys in [b"q".as_slice(), b"\x03", b"s\t\x1b[Bq"] {
        let (code, shown) = tokio::task::block_in_place(|| in_a_terminal(&top, keys, "q quit"));
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("\x1b[?1049h") && shown.contains("ready"), "{shown}");
        let (_, after) =
            shown.rsplit_once("\x1b[?1049l").unwrap_or_else(|| panic!("the screen is not given back: {shown}"));
        assert!(after.contains("\x1b[?25h"), "the cursor stays hidden: {shown}");
    }
}

/// Texts of the page with their colours, as the browser reckons them.
const TEXTS: &str = r#"(() => {
  const behind = at => { for (; at; at = at.parentElement) { const color = getComputedStyle(at).backgroundColor; if (color !== "rgba(0, 0, 0, 0)") return color; } return "none"; };
  const texts = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, box = element.getBoundingClientRect(), text = walker.currentNode.data.trim();
    if (!text || box.width <= 1 || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    texts.push([text.slice(0, 40), element instanceof SVGElement ? style.fill : style.color, behind(element), parseFloat(style.fontSize)]);
  }
  return texts;
})()"#;

/// Looks at the page, and holds against it what every look promises.
fn hold(browser: &mut Browser, is_dark: bool, (width, height): (u32, u32), name: &str) {
    browser.look(is_dark, width, height);
    browser
        .until(&format!("innerWidth === {width} && matchMedia('(prefers-color-scheme: dark)').matches === {is_dark}"));
    // The next poll draws the plots for the new width.
    browser.until("(window.drawnAt = state.now_ms, true)");
    browser.until("state.now_ms > window.drawnAt");
    // For whoever wants to look at it.
    if let Some(folder) = std::env::var_os("WEIR_KEEP_PICTURES") {
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), browser.picture()).unwrap();
    }
    let ground = browser.value("getComputedStyle(document.documentElement).backgroundColor");
    let ground = luminance(parse(ground.as_str().unwrap()));
    assert!(if is_dark { ground < 0.03 } else { ground > 0.9 }, "the ground's luminance is {ground}");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), json!(true), "{name} is too wide");
    let texts: Vec<(String, String, String, f64)> = serde_json::from_value(browser.value(TEXTS)).unwrap();
    assert!(texts.len() > 60, "{} texts", texts.len());
    for (text, color, behind, size) in texts {
        let ratio = contrast(parse(&color), parse(&behind));
        assert!(ratio >= 4.5, "{name}: {text:?}: {color} on {behind}: {ratio:.1}");
        assert!(size >= 12.0, "{name}: {text:?} is {size} high");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_it_in_light_and_dark_and_what_events_bring_stays_text() {
    let world = World::new(12).await;
    let config = configured(&world, "");
    let mut worker = Worker::start_configured(&world, &config).await;
    worker.owns(12).await;
    let address = console(&worker).await;
    publish(&world, Plan { poison_per_mille: 20, ..Plan::new(123, 3_000) }).await;
    world.drained(PATIENCE).await;
    send_hostile(&world).await;
    world.sql("ALTER TABLE messages RENAME TO hidden").await;
    let held = publish(&world, Plan { poison_per_mille: 0, keys: 300, ..Plan::new(124, 900) }).await;
    pool_when(&address, "the partitions to be held", |pool| sum(pool, "lag") == held.records as i64).await;

    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::start();
        browser.look(false, 1280, 1400);
        browser.open(&format!("http://{address}/"));
        let b = &mut browser;
        b.until("document.querySelectorAll('#partitions tbody tr').length === 12");
        // Sorted by lag, the most first; by another column at a click, and by the keyboard's means.
        let lags = "[...document.querySelectorAll('#partitions tbody tr')].map(row => Number(row.cells[3].textContent.replaceAll(',', '')))";
        assert_eq!(b.value(&format!("{lags}.every((lag, at, all) => !at || all[at - 1] >= lag) && {lags}[0] > 0")), json!(true));
        assert_eq!(b.value("document.querySelector('#partitions th[aria-sort]').textContent + document.querySelector('#partitions th[aria-sort]').ariaSort"), "behinddescending");
        b.value("document.querySelector('#partitions th button').click()");
        b.until("document.querySelector('#partitions tbody th').textContent.endsWith('/0')");
        b.value("(document.querySelector('#find').value = '/11 held', document.querySelector('#find').dispatchEvent(new Event('input')))");
        b.until("document.querySelectorAll('#partitions tbody tr').length === 1");
        b.value("(document.querySelector('#find').value = '', document.querySelector('#find').dispatchEvent(new Event('input')))");
        b.until("document.querySelector('#alarms').textContent.includes('Held')");
        b.until("document.querySelectorAll('#plots path').length > 4");

        b.value("document.querySelector('#look').click()");
        b.until("document.querySelectorAll('#dead tbody tr').length > 1");
        let row = "[...document.querySelectorAll('#dead tbody tr')].find(row => row.textContent.includes('malformed'))";
        b.value(&format!("{row}.querySelector('button').click()"));
        b.until("document.querySelector('#dead pre')");
        let shown = b.value("document.querySelector('#dead pre').textContent + document.querySelector('#dead dl').textContent");
        assert!(shown.as_str().unwrap().contains(HOSTILE), "{shown}");
        assert_eq!(b.value("window.taken === undefined && !document.querySelector('#pool img, #pool script, #taken')"), json!(true));
        for (is_dark, size, name) in [
            (false, (1280, 1900), "console-light"),
            (true, (1280, 1900), "console-dark"),
            (false, (390, 3600), "console-phone"),
        ] {
            hold(b, is_dark, size, name);
        }

        // As many partitions as a large topic has, more than are there.
        b.look(true, 1280, 1900);
        b.value("window.many = () => { const pool = state.pools[0], one = pool.partitions[0]; pool.partitions = Array.from({ length: 512 }, (_, n) => ({ ...one, partition: n, lag: n * 7 % 512, state: n % 50 ? 'polling' : 'held' })); sort = { by: 'lag', down: true }; show(); }");
        let took = b.value("(() => { const begun = performance.now(); many(); return performance.now() - begun; })()");
        assert!(took.as_f64().unwrap() < 2_000.0, "drawing 512 partitions took {took} ms");
        assert_eq!(b.value("document.querySelectorAll('#partitions tbody tr').length"), 512);
        let other = browser.requests.iter().find(|url| !url.starts_with(&format!("http://{address}/")));
        assert_eq!(other, None, "something else was asked for");
        assert_eq!(browser.problems, Vec::<String>::new());
        (browser, address)
    })
    .await
    .unwrap();

    // The worker goes and another one comes to its address: both are told.
    let (mut browser, address) = looked;
    worker.kill();
    let mut browser = tokio::task::spawn_blocking(move || {
        browser.until("document.querySelector('#link').textContent.includes('has not answered')");
        browser
    })
    .await
    .unwrap();
    world.sql("ALTER TABLE hidden RENAME TO messages").await;
    let again = format!("{}\n[console]\nlisten = \"{address}\"\n", world.config(""));
    let _worker = Worker::start_configured(&world, &again).await;
    tokio::task::spawn_blocking(move || {
        browser.until("document.querySelector('#link').textContent.includes('was started anew')");
        browser.until("document.querySelectorAll('#partitions tbody tr').length === 12");
    })
    .await
    .unwrap();
}
