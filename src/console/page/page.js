"use strict";
// Draws what /api/state tells, every second. Everything that is told becomes text, never markup.

const POLL_MS = 1000, RETRY_MS = 2000, PATIENCE_MS = 8000, POINTS_MAX = 900;
/// Rows drawn of the partitions: more are found by the filter.
const ROWS_MAX = 600;
const $ = id => document.getElementById(id);
const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
};

let state = null, points = new Map(), chosen = null, instance = null, lostAt = null, notice = "";
let sort = { by: "lag", down: true };

// ---- asking ---------------------------------------------------------------------------------------------------------

const ask = async path => {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error || `HTTP ${answer.status}`);
  return body;
};

const take = told => {
  if (instance && instance !== told.instance) {
    points = new Map();
    notice = `the worker was started anew at ${clock(told.started_ms)}`;
  }
  instance = told.instance;
  for (const pool of told.pools) {
    const known = (points.get(pool.name) ?? []).concat(pool.points);
    points.set(pool.name, known.slice(-POINTS_MAX));
  }
  state = told;
};

const after = () => {
  const lasts = [...points.values()].map(list => list.length ? list[list.length - 1].at_ms : 0);
  return lasts.length ? Math.min(...lasts) : 0;
};

const poll = async () => {
  let wait = POLL_MS;
  try {
    take(await ask(`/api/state?after=${instance ? after() : 0}`));
    lostAt = null;
    show();
  } catch {
    lostAt ??= Date.now();
    wait = RETRY_MS;
    showLink();
  }
  // Whoever looks elsewhere costs nothing.
  if (document.hidden) document.addEventListener("visibilitychange", poll, { once: true });
  else setTimeout(poll, wait);
};

// ---- the worker -----------------------------------------------------------------------------------------------------

const showLink = () => {
  const link = $("link");
  link.className = lostAt ? "lost" : "";
  const said = lostAt
    ? `✗ The worker has not answered since ${clock(lostAt)}; trying again. What is shown is from before.`
    : `● live${notice ? "; " + notice : ""}`;
  if (link.textContent !== said) link.textContent = said;
  $("pool").classList.toggle("stale", Boolean(lostAt));
};

const show = () => {
  const pool = state.pools.find(pool => pool.name === chosen) ?? state.pools[0];
  if (!pool) return;
  if (chosen !== pool.name) choose(pool.name);
  document.title = `weir ${state.host}: ${pool.name} ${number(pool.lag)} behind`;
  $("host").textContent = state.host;
  const process = $("process"), mark = element("span", state.healthy ? (state.ready ? "✓ ready" : "… not ready yet") : "✗ a poll loop stands still", state.healthy ? (state.ready ? "good" : "warn") : "bad");
  process.replaceChildren(mark, `, weir ${state.version}, running for ${span(state.now_ms - state.started_ms)}`);
  showLink();
  showPools();
  showPool(pool);
  showPlots(pool);
  showPartitions(pool);
  $("pool").hidden = false;
};

const choose = name => {
  chosen = name;
  forgetDead();
};

const showPools = () => {
  const nav = $("pools");
  nav.hidden = state.pools.length < 2;
  if (nav.hidden) return;
  const buttons = new Map([...nav.children].map(button => [button.dataset.pool, button]));
  const wanted = state.pools.map(pool => {
    const button = buttons.get(pool.name) ?? element("button");
    if (!button.dataset.pool) {
      button.type = "button";
      button.dataset.pool = pool.name;
      button.addEventListener("click", () => { choose(pool.name); show(); });
    }
    button.setAttribute("aria-current", String(pool.name === chosen));
    const trouble = pool.held ? `, ${pool.held} held` : pool.waiting_for ? ", waits" : pool.paused ? ", paused" : "";
    button.textContent = `${pool.name}: ${number(pool.fleet.lag ?? pool.lag)} behind${trouble}`;
    return button;
  });
  if (wanted.length !== nav.children.length || wanted.some((button, at) => nav.children[at] !== button)) nav.replaceChildren(...wanted);
};

const alarms = pool => {
  const told = [], warn = text => told.push(["warning", text]), alarm = text => told.push(["", text]);
  if (pool.stalled) alarm("The poll loop stands still.");
  for (const away of pool.breakers) alarm(`The ${away.dependency} has been away since ${away.since}: ${away.error}`);
  if (pool.held) {
    const reasons = new Map();
    for (const one of pool.partitions.filter(one => one.state === "held")) {
      reasons.set(one.why, (reasons.get(one.why) ?? []).concat(`${one.topic}/${one.partition}`));
    }
    for (const [why, which] of reasons) alarm(`Held: ${which.slice(0, 8).join(", ")}${which.length > 8 ? ` and ${which.length - 8} more` : ""}: ${why}`);
  }
  if (pool.waiting_for) warn(`Waits for: ${pool.waiting_for}`);
  if (pool.paused) warn(`Paused by ${pool.paused.by} since ${pool.paused.since}${pool.paused.until ? `, until ${pool.paused.until}` : ", until it is resumed"}${pool.paused.reason ? `: ${pool.paused.reason}` : ""}`);
  if (!pool.joined && !pool.waiting_for) warn("It has not joined its group yet.");
  if (pool.parked_keys) warn(`${number(pool.parked_keys)} keys wait behind a rejected event: weir dead release lets them go.`);
  return told;
};

const figures = pool => {
  const last = (points.get(pool.name) ?? []).at(-1);
  const [hits, misses, unknown] = pool.processed_set, asked = hits + misses + unknown;
  return [
    ["behind, here", number(pool.lag), pool.lag > 0 ? `the oldest ${span(pool.lag_ms)}` : ""],
    pool.has_store && ["behind, whole group", pool.fleet.lag === null ? "–" : number(pool.fleet.lag), ""],
    ["settled a second", last ? number(last.out_per_s) : "–", last ? `${number(last.in_per_s)} come in` : ""],
    ["partitions here", String(pool.assigned), pool.held ? `${pool.held} held` : ""],
    ["batch, at most", pool.batch_limit ? number(pool.batch_limit) : "–", last && last.batch ? `${number(last.batch)} lately` : ""],
    ["rate of the group", pool.rate_per_s === null ? "none" : `${number(pool.rate_per_s)}/s`, ""],
    ["workers wanted", number(pool.desired_replicas), "this one’s share"],
    pool.has_store && ["dead rows", pool.fleet.dead_rows === null ? "–" : number(pool.fleet.dead_rows), pool.dead_unpublished ? `${number(pool.dead_unpublished)} not mirrored` : ""],
    ["processed set", asked ? percent(hits / asked) : "–", asked ? `known of ${number(asked)}${unknown ? `, ${number(unknown)} unanswered` : ""}` : "not asked"],
    ["rebalances", number(pool.rebalances), pool.fences ? `${number(pool.fences)} fenced` : ""],
  ].filter(Boolean);
};

const showPool = pool => {
  $("pool-name").textContent = `Pool ${pool.name}`;
  $("pool-reads").textContent = `group ${pool.group} reads ${pool.topics.join(", ")}${pool.has_store ? "" : "; without a store, so without a ledger and dead rows"}`;
  const told = alarms(pool), list = $("alarms"), before = JSON.stringify(told);
  if (list.dataset.told !== before) {
    list.dataset.told = before;
    list.replaceChildren(...told.map(([kind, text]) => element("li", text, kind)));
  }
  $("figures").replaceChildren(...figures(pool).map(([name, value, more]) => {
    const box = element("div"), dd = element("dd", value);
    if (more) dd.append(" ", element("small", more));
    box.append(element("dt", name), dd);
    return box;
  }));
  const fleet = $("fleet");
  fleet.className = pool.fleet.error ? "bad" : "";
  const at = pool.fleet.at_ms === null ? "never" : `${span(Math.max(0, state.now_ms - pool.fleet.at_ms))} ago`;
  fleet.textContent = !pool.has_store ? "Those of this worker: without a ledger, nothing is known of others."
    : pool.fleet.error ? `The whole group could be looked at last: ${at}. ${pool.fleet.error}`
    : `This worker’s as they stand; others’ as the ledger and Kafka told ${at}.`;
  $("dead-section").hidden = !pool.has_store;
};

// ---- plots ----------------------------------------------------------------------------------------------------------

let plots = null;
const showPlots = pool => {
  if (!plots) {
    plots = [
      new Plot({ id: "rates", title: "Events a second", show: number, series: [{ name: "come in", of: p => p.in_per_s }, { name: "settled", of: p => p.out_per_s }, { name: "dead", of: p => p.dead_per_s }] }),
      new Plot({ id: "lag", title: "Events behind", show: number, series: [{ name: "behind", of: p => p.lag }] }),
      new Plot({ id: "age", title: "Age of the oldest", show: ms => span(ms), series: [{ name: "oldest", of: p => p.lag_ms }] }),
      new Plot({ id: "loop", title: "Where the partitions’ time goes", show: percent, stacked: true, most: 1, series: state.phases.map((name, at) => ({ name, of: p => p.loop_share[at] ?? 0 })) }),
    ];
    $("plots").replaceChildren(...plots.map(plot => plot.figure));
  }
  for (const plot of plots) plot.show(points.get(pool.name) ?? [], state.now_ms);
};

// ---- partitions -----------------------------------------------------------------------------------------------------

const short = token => token ? token.slice(0, 8) : "";
const owner = one => one.place === "here" ? "this worker" : one.place === "elsewhere" ? short(one.owner) : "nobody";
const ago = ms => ms === null ? "–" : span(Math.max(0, state.now_ms - ms)) + " ago";
const known = (value, shown) => value === null || value === undefined ? "–" : shown(value);
const COLUMNS = [
  { id: "partition", name: "partition", of: one => [one.topic, one.partition], text: one => `${one.topic}/${one.partition}` },
  { id: "owner", name: "owner", of: one => owner(one), text: owner, title: one => one.owner ?? "" },
  { id: "state", name: "state", of: one => one.state ?? "", text: one => one.state ?? "–" },
  { id: "lag", name: "behind", number: true, of: one => one.lag ?? -1, text: one => known(one.lag, number) },
  { id: "age", name: "oldest", number: true, of: one => one.lag_ms ?? -1, text: one => known(one.lag_ms, span) },
  { id: "batch", name: "batch", number: true, of: one => one.batch ?? -1, text: one => known(one.batch, number) },
  { id: "progress", name: "last progress", number: true, of: one => one.progress_ms ?? 0, text: one => ago(one.progress_ms) },
  { id: "offset", name: "settled to", number: true, of: one => one.next_offset ?? -1, text: one => known(one.next_offset, String) },
  { id: "end", name: "log’s end", number: true, of: one => one.end ?? -1, text: one => known(one.end, String) },
  { id: "epoch", name: "claims", number: true, of: one => one.epoch ?? -1, text: one => known(one.epoch, String) },
  { id: "why", name: "what for", of: one => one.why ?? "", text: one => one.why ?? "", class: "why" },
];
const STATES = { held: "bad", waiting: "warn", paused: "warn", "taking over": "warn" };

const compare = (a, b) => {
  if (Array.isArray(a)) return compare(a[0], b[0]) || compare(a[1], b[1]);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
};

const sorted = partitions => {
  const column = COLUMNS.find(column => column.id === sort.by), turn = sort.down ? -1 : 1;
  return [...partitions].sort((a, b) => turn * compare(column.of(a), column.of(b)) || compare(COLUMNS[0].of(a), COLUMNS[0].of(b)));
};

const isShown = (one, words, which) => {
  if (which === "here" && one.place !== "here") return false;
  if (which === "lag" && !(one.lag > 0)) return false;
  if (which === "stuck" && !(one.place === "nobody" || ["held", "waiting"].includes(one.state))) return false;
  const text = [`${one.topic}/${one.partition}`, owner(one), one.owner ?? "", one.state ?? "", one.why ?? ""].join(" ").toLowerCase();
  return words.every(word => text.includes(word));
};

const showHead = () => {
  const row = $("partitions").tHead.rows[0];
  if (!row.cells.length) {
    for (const column of COLUMNS) {
      const th = element("th"), button = element("button", column.name);
      th.scope = "col";
      if (column.number) th.className = "number";
      button.type = "button";
      button.addEventListener("click", () => {
        sort = { by: column.id, down: sort.by === column.id ? !sort.down : Boolean(column.number) };
        show();
      });
      th.append(button);
      row.append(th);
    }
  }
  COLUMNS.forEach((column, at) => {
    if (sort.by === column.id) row.cells[at].setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else row.cells[at].removeAttribute("aria-sort");
  });
};

const showPartitions = pool => {
  showHead();
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = sorted(pool.partitions.filter(one => isShown(one, words, $("which").value)));
  const body = $("partitions").tBodies[0];
  const rows = found.slice(0, ROWS_MAX);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((one, at) => {
    const row = body.rows[at] ?? newRow(body);
    COLUMNS.forEach((column, cell) => {
      const text = column.text(one), td = row.cells[cell];
      if (td.textContent !== text) td.textContent = text;
      if (column.title) td.title = column.title(one);
      if (column.id === "state") td.className = STATES[one.state] ?? "";
      if (column.id === "partition") td.className = text.length > 40 ? "long" : "";
    });
  });
  const hidden = found.length - rows.length;
  const said = `${found.length} of ${pool.partitions.length}${hidden > 0 ? `; ${hidden} more are not drawn: narrow them down` : ""}`;
  if ($("shown").textContent !== said) $("shown").textContent = said;
};

const newRow = body => {
  const row = body.insertRow();
  COLUMNS.forEach((column, at) => {
    const cell = element(at ? "td" : "th", "", column.number ? "number" : column.class);
    if (!at) cell.scope = "row";
    row.append(cell);
  });
  return row;
};

// ---- dead rows ------------------------------------------------------------------------------------------------------

let skip = 0;
const date = ms => new Date(ms).toISOString().replace("T", " ").slice(0, 19) + " UTC";

const forgetDead = () => {
  skip = 0;
  $("dead").hidden = true;
  $("dead-told").textContent = "";
  $("newer").hidden = $("older").hidden = true;
};

const lookAtDead = async () => {
  const pool = chosen, told = $("dead-told");
  const query = new URLSearchParams({ pool, skip, reason: $("reason").value, id: $("dead-id").value.trim() });
  told.className = "";
  told.textContent = "Looking…";
  try {
    const page = await ask(`/api/dead?${query}`);
    if (pool !== chosen) return;
    told.textContent = page.rows.length ? `${page.skip + 1} to ${page.skip + page.rows.length}` : "There are none.";
    $("dead").hidden = !page.rows.length;
    $("newer").hidden = page.skip === 0;
    $("older").hidden = !page.more;
    [$("newer").dataset.skip, $("older").dataset.skip] = [Math.max(0, page.skip - 50), page.skip + 50];
    $("dead").tBodies[0].replaceChildren(...page.rows.map(row => deadRow(pool, row)));
  } catch (error) {
    told.className = "bad";
    told.textContent = `Dead rows cannot be read: ${error.message}`;
  }
};

const deadRow = (pool, row) => {
  const tr = element("tr"), id = element("th", row.id, "id"), last = element("td"), open = element("button", "Show");
  id.scope = "row";
  open.type = "button";
  open.setAttribute("aria-expanded", "false");
  open.addEventListener("click", () => toggleRecord(pool, row, tr, open));
  last.append(open);
  const place = `${row.topic}/${row.partition} @ ${row.offset}`;
  const more = [row.holds_key && "holds its key back", row.replay_ms && "replay asked for", !row.published_ms && "not mirrored yet"].filter(Boolean);
  tr.append(element("td", date(row.created_ms)), id, element("td", row.reason), element("td", row.pipeline), element("td", place), element("td", row.attempts, "number"), element("td", [row.message, ...more].join("; "), "why"), last);
  return tr;
};

const toggleRecord = async (pool, row, tr, open) => {
  if (open.getAttribute("aria-expanded") === "true") {
    tr.nextSibling?.remove();
    open.setAttribute("aria-expanded", "false");
    open.textContent = "Show";
    return;
  }
  open.setAttribute("aria-expanded", "true");
  open.textContent = "Hide";
  const below = element("tr"), cell = element("td", "Looking…", "record");
  cell.colSpan = tr.cells.length;
  below.append(cell);
  tr.after(below);
  try {
    const query = new URLSearchParams({ pool, id: row.id, kind: row.kind });
    cell.replaceChildren(...record(await ask(`/api/dead/row?${query}`)));
  } catch (error) {
    cell.replaceChildren(element("span", `The record cannot be read: ${error.message}`, "bad"));
  }
};

const record = told => {
  const list = element("dl"), add = (name, value) => { if (value) list.append(element("dt", name), element("dd", value)); };
  add("type", told.kind);
  add("key", told.key);
  add("record at", told.record_ms === null ? "" : date(told.record_ms));
  add("mirrored at", told.published_ms === null ? "not yet" : date(told.published_ms));
  add("headers", told.headers);
  add("value", told.value === null ? "none: a tombstone" : `${told.value_bytes} bytes${told.is_cut ? "; its beginning:" : ""}`);
  return told.value === null ? [list] : [list, element("pre", told.value)];
};

$("find").addEventListener("input", () => state && show());
$("which").addEventListener("change", () => state && show());
const first = () => { skip = 0; lookAtDead(); };
$("look").addEventListener("click", first);
$("reason").addEventListener("change", first);
$("dead-id").addEventListener("keydown", event => { if (event.key === "Enter") first(); });
for (const id of ["newer", "older"]) $(id).addEventListener("click", event => { skip = Number(event.currentTarget.dataset.skip); lookAtDead(); });
poll();
