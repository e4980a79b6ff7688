// The live console: server-sent events in, a few buttons out. No framework; text only ever enters as text.

const $ = (id) => document.getElementById(id);
const calls = new Map(); // summaries of calls that go on or just ended
const details = new Map(); // events by call
let recordings = [];
let chosen = null; // {kind: "call" | "recording", id}
let meters = {};
let player = null;

const STAGES = [
  ["s1", "understood", "speech_end_at", "transcript_at"],
  ["s2", "first word", "transcript_at", "first_token_at"],
  ["s3", "first sentence", "first_token_at", "first_sentence_at"],
  ["s4", "first speech", "first_sentence_at", "first_tts_byte_at"],
  ["s5", "until heard", "first_tts_byte_at", "first_frame_at"],
];

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

function row(kind, id, title, right, below, living) {
  const current = chosen && chosen.kind === kind && chosen.id === id;
  return make("li", {}, make(
    "button",
    { type: "button", "aria-current": current ? "true" : "false", onclick: () => choose(kind, id) },
    make("span", {}, title), make("span", {}, right),
    make("small", { class: living ? "living" : "" }, below), make("small", {}, ""),
  ));
}

function keepFocus(list, render) {
  const index = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  render();
  if (index >= 0) list.querySelectorAll("button")[index]?.focus();
}

function state(call) {
  if (call.goes_on) return "goes on";
  if (call.unreadable) return "unreadable";
  return call.sealed ? "" : "cut short";
}

function renderLists() {
  const shown = [...calls.values()].sort((a, b) => (a.started < b.started ? 1 : -1));
  keepFocus($("calls"), () => $("calls").replaceChildren(...shown.map((call) => row(
    "call", call.call, `${call.direction === "inbound" ? "from" : "to"} ${number(call)}`,
    clock(call.seconds), call.stage === "over" ? call.ending : call.stage, call.stage !== "over",
  ))));
  $("no-calls").hidden = shown.length > 0;
  keepFocus($("recordings"), () => $("recordings").replaceChildren(...recordings.map((call) => row(
    "recording", call.name, call.sealed ? "sealed" : number({ ...call, from: call.number, to: call.number }),
    clock(call.seconds), `${when(call.started)} · ${call.outcome || state(call)}`, false,
  ))));
  $("no-recordings").hidden = recordings.length > 0;
}

async function loadRecordings() {
  try {
    recordings = (await ask("/api/recordings")).recordings;
    renderLists();
  } catch { /* the next try says so */ }
}

// --- one call

async function choose(kind, id) {
  chosen = { kind, id };
  player = null;
  complain("");
  try {
    if (kind === "call") {
      const detail = await ask(`/api/calls/${encodeURIComponent(id)}`);
      details.set(id, detail.events || []);
    } else {
      const detail = await ask(`/api/recordings/${encodeURIComponent(id)}`);
      details.set(id, detail.events);
    }
  } catch (error) {
    complain(error.message);
    return;
  }
  renderLists();
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

function callParts(id) {
  const call = calls.get(id);
  if (!call) return [make("p", { class: "hint" }, "This call is over.")];
  const living = call.stage !== "over";
  const line = call.line || {};
  const parts = [
    make("h3", {}, `Call ${call.direction === "inbound" ? "from" : "to"} ${number(call)}`),
    facts([
      ["stage", call.stage], ["id", call.call], ["called", call.direction === "inbound" ? call.to : ""],
      ["recording", call.recording], ["line", line.mos ? `MOS ${line.mos}` : ""],
      ["lost", line.mos ? `${line.lost_percent.toFixed(1)} %` : ""],
      ["jitter", line.mos ? `${line.jitter_ms.toFixed(0)} ms` : ""],
      ["cost", cost(call)], ["ended", call.ending],
    ]),
  ];
  if (living) parts.push(controls(call), levelMeters(id));
  parts.push(words(details.get(id) || [], null), turns(details.get(id) || []));
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
        const shown = $("detail").querySelector(`input[name="${name}"]`);  // drawn anew meanwhile, perhaps
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

function turns(events) {
  const timed = events.filter((event) => event.event === "turn_timed");
  if (!timed.length) return make("p", {});
  const last = (turn) => Math.max(...STAGES.map(([, , , end]) => turn[end] ?? 0));
  const longest = Math.max(...timed.map((turn) => last(turn) - turn.speech_end_at), 1);
  const table = make("table", { class: "turns" });
  for (const turn of timed) {
    const svg = make("svg", { class: "bars", viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img" });
    const notes = [];
    for (const [name, label, begin, end] of STAGES) {
      if (turn[begin] === null || turn[end] === null) continue;
      const x = (turn[begin] - turn.speech_end_at) / longest * 1000;
      const width = (turn[end] - turn[begin]) / longest * 1000;
      notes.push(`${label} ${Math.round((turn[end] - turn[begin]) * 1000)} ms`);
      svg.append(make("rect", { class: name, x: Math.max(x, 0), y: 2, width: Math.max(width, 1), height: 16 }));
    }
    svg.append(make("title", {}, notes.join(", ")));
    const gap = turn.first_frame_at === null ? "–" : `${Math.round((turn.first_frame_at - turn.speech_end_at) * 1000)} ms`;
    table.append(make("tr", {}, make("td", {}, `turn ${turn.turn}`), make("td", {}, gap), make("td", {}, svg)));
  }
  return make("section", {}, make("h2", {}, "From the caller's last word"), table,
    make("p", { class: "legend" }, ...STAGES.map(([name, label]) => make("span", { class: name }, label))));
}

// --- a recording

function recordingParts(name) {
  const call = recordings.find((other) => other.name === name) || {};
  const events = details.get(name) || [];
  const audio = make("audio", { controls: true, preload: "auto", src: `/api/recordings/${encodeURIComponent(name)}/audio` });
  const canvas = make("canvas", { role: "img", "aria-label": "waveform: above the caller, below the bot" });
  const said = words(events, (at) => { audio.currentTime = at; audio.play(); });
  const wait = call.gaps_ms && call.gaps_ms.length
    ? `${[...call.gaps_ms].sort((a, b) => a - b)[Math.floor(call.gaps_ms.length / 2)]} ms` : "";
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
      ["median wait", wait], ["interrupted", call.barge_ins], ["line", call.mos ? `MOS ${call.mos}` : ""],
      ["cost", cost(call)], ["folder", name],
    ]),
    canvas, audio, said, turns(events),
  ];
}

async function loadPeaks(name, mine) {
  try {
    const answer = await fetch(`/api/recordings/${encodeURIComponent(name)}/audio`);
    if (!answer.ok) return;
    const data = new DataView(await answer.arrayBuffer());
    const frames = Math.floor((data.byteLength - 44) / 4);
    const columns = 800;
    const peaks = [new Float32Array(columns), new Float32Array(columns)];
    for (let frame = 0; frame < frames; frame++) {
      const column = Math.min(columns - 1, Math.floor(frame / frames * columns));
      for (const side of [0, 1]) {
        const level = Math.abs(data.getInt16(44 + frame * 4 + side * 2, true)) / 32768;
        if (level > peaks[side][column]) peaks[side][column] = level;
      }
    }
    mine.peaks = peaks;
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
      renderLists();
      if (chosen?.kind === "call") choose("call", chosen.id);
      break;
    case "call": {
      const before = calls.get(message.call);
      calls.set(message.call, message.summary);
      renderLists();
      if (!before && !chosen) choose("call", message.call);
      else if (isChosen(message.call)) renderUnlessTyping();
      if (message.summary.stage === "over") setTimeout(loadRecordings, 800);
      break;
    }
    case "event":
      if (!details.has(message.call)) details.set(message.call, []);
      details.get(message.call).push(message);
      if (isChosen(message.call)) renderUnlessTyping();
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
  for (const call of calls.values()) if (call.stage !== "over") call.seconds += 1;
  if ([...calls.values()].some((call) => call.stage !== "over")) renderLists();
}, 1000);
follow();
