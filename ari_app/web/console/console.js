// The live console: server-sent events in, a few buttons out. No framework; text only ever enters as text.

const $ = (id) => document.getElementById(id);
const MAX_OVER = 50; // calls that are over, as many as the server remembers
const MAX_RECORDINGS = 200;
const MAX_EVENTS = 400; // of the chosen call, as many as the server keeps
const NEWEST = 20; // recordings asked for when a call is over

const calls = new Map(); // summaries of calls that go on or just ended
let recordings = []; // newest first
let chosen = null; // {kind: "call" | "recording", id, events, ready}: events of that one only
let meters = {};
let player = null;

// The stages of a wait, by the names the server gives them.
const STAGES = new Map([
  ["silence window", "s0"], ["speech-to-text", "s1"], ["first word", "s2"],
  ["first sentence", "s3"], ["first speech", "s4"], ["on the line", "s5"],
]);

function make(tag, attributes = {}, ...children) {
  const made = tag === "svg" || tag === "rect" || tag === "title"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const when = (iso) =>
  new Date(iso).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const number = (call) => (call.direction === "inbound" ? call.from : call.to) || "unknown";

function complain(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function ask(path, body) {
  const options = body === undefined
    ? {}
    : {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Requested-With": "console" },
        body: JSON.stringify(body),
      };
  const answer = await fetch(path, options);
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("logged out");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function act(path, body) {
  complain("");
  try {
    return await ask(path, body);
  } catch (error) {
    complain(error.message);
    return null;
  }
}

// --- lists

// A list whose rows stay what they are: only what changed is written, and only what moved is moved.
function makeList(list) {
  const rows = new Map(); // by id
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  return (kind, shown) => {
    const ids = new Set(shown.map((item) => item.id));
    for (const [id, made] of rows) {
      if (ids.has(id)) continue;
      made.item.remove();
      rows.delete(id);
    }
    shown.forEach((item, index) => {
      let made = rows.get(item.id);
      if (!made) {
        const [title, right, below] = [make("span"), make("span"), make("small")];
        const button = make("button", { type: "button", onclick: () => choose(kind, item.id) },
          title, right, below, make("small"));
        made = { item: make("li", {}, button), button, title, right, below };
        rows.set(item.id, made);
      }
      write(made.title, item.title);
      write(made.right, item.right);
      write(made.below, item.below);
      made.below.className = item.living ? "living" : "";
      made.button.setAttribute("aria-current", chosen?.kind === kind && chosen.id === item.id ? "true" : "false");
      if (list.children[index] !== made.item) list.insertBefore(made.item, list.children[index] ?? null);
    });
  };
}

const showCalls = makeList($("calls"));
const showRecordings = makeList($("recordings"));

function renderCalls() {
  const newest = [...calls.values()].sort((a, b) => (a.started < b.started ? 1 : -1));
  let over = 0;
  for (const call of newest) {
    if (call.stage === "over" && ++over > MAX_OVER && !isChosen(call.call)) calls.delete(call.call);
  }
  showCalls("call", newest.filter((call) => calls.has(call.call)).map((call) => ({
    id: call.call,
    title: `${call.direction === "inbound" ? "from" : "to"} ${number(call)}`,
    right: clock(call.seconds),
    below: call.stage === "over" ? call.ending : call.stage,
    living: call.stage !== "over",
  })));
  $("no-calls").hidden = calls.size > 0;
}

function renderRecordings() {
  showRecordings("recording", recordings.map((call) => ({
    id: call.name,
    title: call.sealed ? "sealed" : number({ ...call, from: call.number, to: call.number }),
    right: clock(call.seconds),
    below: `${when(call.started)} · ${call.outcome || (call.sealed ? "" : call.goes_on ? "goes on" : "cut short")}`,
    living: false,
  })));
  $("no-recordings").hidden = recordings.length > 0;
}

async function loadRecordings(limit = MAX_RECORDINGS) {
  try {
    const newest = (await ask(`/api/recordings?limit=${limit}`)).recordings;
    const known = new Set(newest.map((call) => call.name));
    const older = limit < MAX_RECORDINGS ? recordings.filter((call) => !known.has(call.name)) : [];
    recordings = [...newest, ...older].sort((a, b) => (a.started < b.started ? 1 : -1)).slice(0, MAX_RECORDINGS);
    renderRecordings();
  } catch { /* the next try says so */ }
}

// Many calls may end at once, and many consoles may hear of it.
let asking = null;
function loadNewRecordings() {
  asking ??= setTimeout(() => {
    asking = null;
    loadRecordings(NEWEST);
  }, 800 + Math.random() * 700);
}

// --- one call

async function choose(kind, id) {
  const mine = { kind, id, events: [], ready: false }; // events that come while we ask are kept here
  chosen = mine;
  player = null;
  complain("");
  try {
    const detail = await ask(`/api/${kind === "call" ? "calls" : "recordings"}/${encodeURIComponent(id)}`);
    if (chosen !== mine) return; // something else was chosen meanwhile
    const { events: known, ...summary } = detail;
    const last = known.at(-1)?.n ?? 0;
    mine.events = [...known, ...mine.events.filter((event) => event.n > last)];
    mine.ready = true;
    if (kind === "call" && !calls.has(id)) calls.set(id, summary);
  } catch (error) {
    if (chosen !== mine) return;
    mine.ready = true; // what comes from now on is shown
    complain(error.message);
    return;
  }
  renderCalls();
  renderRecordings();
  renderDetail();
  $("detail").focus({ preventScroll: true });
}

function renderDetail() {
  if (!chosen) return;
  const parts = chosen.kind === "call" ? callParts(chosen.id) : recordingParts(chosen.id);
  $("detail").replaceChildren(...parts);
}

function facts(pairs) {
  return make("p", { class: "facts" }, ...pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => make("span", {}, `${name} `, make("b", {}, String(value)))));
}

function cost(call) {
  if (typeof call.cost_usd !== "number") return call.cost_is_partial ? "unknown" : "";
  return `${call.cost_is_partial ? "at least " : ""}$${call.cost_usd.toFixed(4)}`;
}

function lineOf(line) {
  if (line.mos) return `MOS ${line.mos}`;
  if (line.received === 0) return "no audio from the caller";
  return line.sent === 0 ? "no audio to the caller" : "";
}

function callParts(id) {
  const call = calls.get(id);
  if (!call) return [make("p", { class: "hint" }, "This call is over.")];
  const living = call.stage !== "over";
  const line = call.line || {};
  const parts = [
    make("h3", {}, `Call ${call.direction === "inbound" ? "from" : "to"} ${number(call)}`),
    facts([
      ["stage", call.stage], ["id", call.call], ["called", call.direction === "inbound" ? call.to : ""],
      ["recording", call.recording], ["line", lineOf(line)],
      ["lost", line.mos ? `${line.lost_percent.toFixed(1)} %` : ""],
      ["jitter", line.mos ? `${line.jitter_ms.toFixed(0)} ms` : ""],
      ["cost", cost(call)], ["ended", call.ending],
    ]),
  ];
  if (living) parts.push(controls(call), levelMeters(id));
  parts.push(words(chosen.events, null), turns(chosen.events));
  return parts;
}

function controls(call) {
  const path = `/api/calls/${encodeURIComponent(call.call)}`;
  const form = (name, label, button, body) => {
    const field = make("input", { name, "aria-label": label, placeholder: label, autocomplete: "off", required: true });
    return make("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        const sent = field.value;
        if (!(await act(`${path}/${name}`, body(sent)))) return;
        const shown = $("detail").querySelector(`input[name="${name}"]`); // drawn anew meanwhile, perhaps
        if (shown?.value === sent) shown.value = "";
      },
    }, field, make("button", { class: "quiet" }, button));
  };
  return make("div", { class: "controls" },
    make("button", { type: "button", class: "stop", onclick: () => act(`${path}/hangup`, {}) }, "Hang up"),
    call.recording === "off" ? null : make("button", {
      type: "button", class: "quiet",
      onclick: () => act(`${path}/recording`, { paused: call.recording !== "paused" }),
    }, call.recording === "paused" ? "Go on recording" : "Pause recording"),
    form("say", "a sentence to say", "Say", (text) => ({ text })),
    call.direction === "inbound" ? form("transfer", "extension", "Transfer", (extension) => ({ extension })) : null,
  );
}

function levelMeters(id) {
  const meter = (side) => {
    const made = make("meter", { min: -60, max: 0, low: -45, high: -6, optimum: -20, value: -60, "aria-label": `level of the ${side}` });
    meters[`${id}/${side}`] = made;
    return made;
  };
  meters = {};
  return make("div", { class: "meters" },
    make("span", {}, "caller"), meter("caller"), make("span", {}, "bot"), meter("bot"));
}

// What was said. `seek` is given the second at which a word was said when it is clicked.
function words(events, seek) {
  const box = make("div", { class: "words" });
  let callerAt = null;
  let botAt = null;
  let speaking = "";
  const add = (kind, text, at, note, extra = {}) => {
    const inside = [make("small", {}, `${at === null ? "" : clock(at) + " "}${note}`), text];
    box.append(seek && at !== null
      ? make("button", { type: "button", class: `word ${kind}`, "data-at": at, onclick: () => seek(at), ...extra }, ...inside)
      : make("div", { class: `word ${kind}`, ...extra }, ...inside));
  };
  for (const event of events) {
    switch (event.event) {
      case "caller_speech_started":
        callerAt ??= event.onset_at;
        speaking = "caller";
        break;
      case "bot_speech_started":
        botAt = event.at;
        speaking = "bot";
        break;
      case "caller_said":
        add("caller", event.text, callerAt, "caller");
        callerAt = null;
        speaking = "";
        break;
      case "caller_not_understood":
        add("odd", `not understood: ${event.reason || "no words"}`, callerAt, "");
        callerAt = null;
        speaking = "";
        break;
      case "bot_said": {
        const rest = event.interrupted ? event.text.slice(event.heard.length) : "";
        const said = make("span", {}, event.interrupted ? event.heard : event.text,
          rest ? make("del", {}, rest) : null);
        add("bot", said, botAt, event.interrupted ? "bot, interrupted" : "bot");
        botAt = null;
        speaking = "";
        break;
      }
      case "barge_in_dismissed":
        add("odd", `waited ${Math.round(event.paused_ms)} ms for “${event.words || "noise"}” and went on`, event.at, "");
        speaking = "bot";
        break;
      case "engine_failed":
        add("odd failed", `${event.stage}: ${event.message}`, null, "failed");
        break;
      case "gave_up":
        add("odd failed", event.reason, null, "gave up");
        break;
      case "recording_paused":
      case "recording_resumed":
        add("odd", event.event.replace("_", " "), null, "");
        break;
    }
  }
  if (speaking && !seek) add(`${speaking} speaking`, "…", null, `${speaking} speaks`);
  return box;
}

// What each answer waited for; below it, thinner, what was done within the silence window and cost no time.
function turns(events) {
  const timed = events.filter((event) => event.event === "turn_timed" && event.stages);
  if (!timed.length) return make("p", {});
  const longest = Math.max(...timed.flatMap((turn) => turn.stages.map((stage) => stage.end_ms)), 1000);
  const table = make("table", { class: "turns" });
  for (const turn of timed) {
    const svg = make("svg", { class: "bars", viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img" });
    const draw = (stage, y, height) => svg.append(make("rect", {
      class: STAGES.get(stage.name), x: stage.begin_ms / longest * 1000, y,
      width: Math.max((stage.end_ms - stage.begin_ms) / longest * 1000, 1), height,
    }));
    for (const stage of turn.stages) draw(stage, 1, turn.ahead.length ? 12 : 18);
    for (const stage of turn.ahead) draw(stage, 14, 5);
    const notes = turn.stages.map((stage) => `${stage.name} ${stage.end_ms - stage.begin_ms} ms`);
    if (turn.ahead.length) {
      notes.push(`in the silence window: ${turn.ahead.map((stage) => `${stage.name} at ${stage.end_ms} ms`).join(", ")}`);
    }
    svg.append(make("title", {}, notes.join(", ")));
    const gap = turn.wait_ms === null ? "–" : `${turn.wait_ms} ms`;
    table.append(make("tr", {}, make("td", {}, `turn ${turn.turn}`), make("td", {}, gap), make("td", {}, svg)));
  }
  return make("section", {}, make("h2", {}, "From the caller's last word"), table,
    make("p", { class: "legend" }, ...[...STAGES].map(([label, name]) => make("span", { class: name }, label))));
}

// --- a recording

function recordingParts(name) {
  const call = recordings.find((other) => other.name === name) || {};
  const { events } = chosen;
  const audio = make("audio", { controls: true, preload: "metadata", src: `/api/recordings/${encodeURIComponent(name)}/audio` });
  const canvas = make("canvas", { role: "img", "aria-label": "waveform: above the caller, below the bot" });
  const said = words(events, (at) => { audio.currentTime = at; audio.play(); });
  const wait = typeof call.wait_ms === "number" ? `${Math.round(call.wait_ms)} ms` : "";
  player = { audio, canvas, said, peaks: null };
  audio.addEventListener("timeupdate", followPlayer);
  canvas.addEventListener("click", (event) => {
    const share = event.offsetX / canvas.clientWidth;
    if (Number.isFinite(audio.duration)) audio.currentTime = share * audio.duration;
  });
  loadPeaks(name, player);
  return [
    make("h3", {}, `${call.direction === "inbound" ? "From" : "To"} ${call.number || "unknown"}, ${when(call.started)}`),
    facts([
      ["ended", call.reason || call.outcome], ["length", clock(call.seconds || 0)], ["turns", call.turns],
      ["median wait", wait], ["interrupted", call.barge_ins],
      ["line", call.unheard ? "no audio from the caller" : call.mos ? `MOS ${call.mos}` : ""],
      ["cost", cost(call)], ["folder", name],
    ]),
    canvas, audio, said, turns(events),
  ];
}

async function loadPeaks(name, mine) {
  try {
    const found = await ask(`/api/recordings/${encodeURIComponent(name)}/peaks?columns=800`);
    mine.peaks = [found.caller, found.bot];
    drawPeaks(mine);
  } catch { /* there is no picture then */ }
}

function drawPeaks(mine) {
  const { canvas, peaks, audio } = mine;
  if (!peaks) return;
  const style = getComputedStyle(document.documentElement);
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  const paint = canvas.getContext("2d");
  const half = canvas.height / 2;
  const step = canvas.width / peaks[0].length;
  for (const [side, colour] of [[0, "--caller"], [1, "--bot"]]) {
    paint.fillStyle = style.getPropertyValue(colour);
    const middle = half * (side + 0.5);
    peaks[side].forEach((peak, column) => {
      const height = Math.max(peak * half * 0.95, 1);
      paint.fillRect(column * step, middle - height / 2, Math.max(step - 0.5, 1), height);
    });
  }
  if (Number.isFinite(audio.duration)) {
    paint.fillStyle = style.getPropertyValue("--ink");
    paint.fillRect(audio.currentTime / audio.duration * canvas.width, 0, 2, canvas.height);
  }
}

function followPlayer() {
  if (!player) return;
  drawPeaks(player);
  let now = null;
  for (const word of player.said.querySelectorAll("[data-at]")) {
    word.classList.remove("now");
    if (Number(word.dataset.at) <= player.audio.currentTime + 0.05) now = word;
  }
  now?.classList.add("now");
}

// --- what happens

function take(message) {
  switch (message.type) {
    case "calls":
      calls.clear();
      for (const call of message.calls) calls.set(call.call, call);
      renderCalls();
      if (chosen?.kind === "call") choose("call", chosen.id);
      break;
    case "call": {
      const before = calls.get(message.call);
      calls.set(message.call, message.summary);
      renderCalls();
      if (!before && !chosen) choose("call", message.call);
      else if (isChosen(message.call)) renderUnlessTyping();
      if (message.summary.stage === "over") loadNewRecordings();
      break;
    }
    case "event":
      if (!isChosen(message.call) || message.event === "engine_used") break; // others are asked for when chosen
      chosen.events.push(message);
      chosen.events.splice(0, chosen.events.length - MAX_EVENTS);
      renderUnlessTyping();
      break;
    case "levels":
      for (const [call, sides] of Object.entries(message.levels)) {
        for (const [side, level] of Object.entries(sides)) {
          const meter = meters[`${call}/${side}`];
          if (meter) meter.value = level;
        }
      }
      break;
    case "refused":
      complain(`A caller was refused: ${message.reason}.`);
      break;
  }
}

const isChosen = (id) => chosen?.kind === "call" && chosen.id === id;

// What is being typed, and the focus, survive a new picture.
function renderUnlessTyping() {
  if (!chosen.ready) return;
  const active = document.activeElement;
  const typing = active?.closest?.("#detail") ? active : null;
  const kept = [...$("detail").querySelectorAll("input")].map((field) => [field.name, field.value]);
  const index = typing ? [...$("detail").querySelectorAll("button,input")].indexOf(typing) : -1;
  renderDetail();
  for (const [name, value] of kept) {
    const field = $("detail").querySelector(`input[name="${name}"]`);
    if (field) field.value = value;
  }
  if (index >= 0) $("detail").querySelectorAll("button,input")[index]?.focus({ preventScroll: true });
}

function follow() {
  const source = new EventSource("/api/events");
  source.onopen = () => {
    $("state").textContent = "live";
    $("state").className = "";
    loadRecordings();
  };
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = async () => {
    $("state").textContent = "the server does not answer; trying again …";
    $("state").className = "lost";
    if (source.readyState === EventSource.CLOSED) {
      await ask("/api/calls").catch(() => {});
      setTimeout(follow, 2000);
    }
  };
}

$("place").addEventListener("submit", async (event) => {
  event.preventDefault();
  const placed = await act("/api/calls", { number: $("number").value.trim() });
  if (placed) choose("call", placed.call);
});
$("logout").addEventListener("click", async () => {
  await act("/logout", {});
  location.assign("/login");
});
setInterval(() => {
  const living = [...calls.values()].filter((call) => call.stage !== "over");
  for (const call of living) call.seconds += 1;
  if (living.length) renderCalls();
}, 1000);
follow();
