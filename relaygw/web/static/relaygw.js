// Live list, keys, theme. The pages work without any of it.
"use strict";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* --- theme: light, dark, as the system ------------------------------------------------------- */

const theme = one("#theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
theme?.addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const wanted = isDark ? "light" : "dark";
  const isSystem = (wanted === "dark") === dark.matches;
  if (isSystem) delete root.dataset.theme;
  else root.dataset.theme = wanted;
  try {
    if (isSystem) localStorage.removeItem("relaygw-theme");
    else localStorage.setItem("relaygw-theme", wanted);
  } catch {
    // without storage it holds for this page
  }
});

/* --- the list ---------------------------------------------------------------------------------- */

const inbox = () => one("[data-inbox]");
const mails = () => one("[data-mails]");
const number = new Intl.NumberFormat("en");
let source = null;
let wasLost = false;

function showLive(isLive) {
  const sign = one("[data-live]");
  if (!sign) return;
  sign.hidden = false;
  sign.classList.toggle("is-live", isLive);
  sign.textContent = isLive ? "live" : "not live; load the page again";
}

function listen() {
  source?.close();
  source = null;
  const list = inbox();
  if (!list || document.hidden) return;
  const asked = new URLSearchParams({ last: list.dataset.newest, query: list.dataset.query });
  const mine = new EventSource(`${list.dataset.events}?${asked}`);
  mine.list = list;
  source = mine;
  mine.addEventListener("open", () => {
    showLive(true);
    if (wasLost) reload();
    wasLost = false;
  });
  mine.addEventListener("error", () => {
    wasLost = true;
    showLive(false);
    // the browser comes back by itself unless it was told not to
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => source === mine && listen(), 10_000);
  });
  mine.addEventListener("change", (event) => apply(JSON.parse(event.data)));
  mine.addEventListener("again", listen);
}

async function reload() {
  if (!inbox()) return;
  const ticked = all(".mail .pick :checked").map((box) => box.value);
  await htmx.ajax("GET", location.href, { target: "#inbox", select: "#inbox", swap: "outerHTML" });
  for (const id of ticked) {
    const box = one(`#m-${id} .pick input`);
    if (box) box.checked = true;
  }
}

function apply(change) {
  const list = inbox();
  if (!list) return;
  const isFirst = list.dataset.page === "1";
  if (isFirst && change.reload) return reload();
  if (isFirst && change.rows.length && !mails().isConnected) return reload();
  if (isFirst) change.rows.toReversed().forEach(insert);
  change.gone.forEach((id) => one(`#m-${id}`)?.remove());
  for (const [id, isRead] of Object.entries(change.read)) {
    one(`#m-${id}`)?.classList.toggle("is-unread", !isRead);
  }
  trim(Number(list.dataset.rows));
  tell(change);
}

function insert(row) {
  if (one(`#m-${row.id}`)) return;
  const holder = document.createElement("template");
  holder.innerHTML = row.html;
  const line = holder.content.querySelector("li");
  if (row.id > inbox().dataset.newest) {
    line.classList.add("is-new");
    inbox().dataset.newest = row.id;
    const until = one("#bulk [name=until]");
    if (until) until.value = row.id;
  }
  const next = all(".mail", mails()).find((each) => each.dataset.id < row.id);
  mails().insertBefore(line, next ?? null);
}

function trim(most) {
  for (const line of all(".mail", mails()).slice(most)) {
    if (!one(":checked", line) && !line.contains(document.activeElement)) line.remove();
  }
}

function tell(change) {
  const shown = all(".mail", mails()).length;
  const empty = one(".empty");
  if (shown ? empty : !empty) return reload(); // what the page says of an empty list is the server's
  const last = Number(inbox().dataset.first) + shown - 1;
  for (const part of all("[data-last]")) part.textContent = number.format(last);
  for (const part of all("[data-found]")) part.textContent = number.format(change.found);
  one("[data-total]").textContent = number.format(change.total);
  one("[data-unread]").textContent = number.format(change.unread);
  const title = document.title.replace(/^\(\d+\) /, "");
  document.title = change.found_unread ? `(${change.found_unread}) ${title}` : title;
}

document.addEventListener("visibilitychange", () => {
  // a page that nobody looks at takes no connection; it catches up when it is seen again
  wasLost = !document.hidden && inbox() !== null;
  listen();
});

function ageOf(at, now) {
  const seconds = Math.max(0, now - at) / 1000;
  if (seconds < 10) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return seconds < 604_800 ? `${Math.floor(seconds / 86_400)} d` : null;
}

setInterval(() => {
  for (const time of all("[data-age]")) {
    const words = ageOf(Date.parse(time.dateTime), Date.now());
    if (words && time.textContent !== words) time.textContent = words;
  }
}, 10_000);

/* --- times of this browser's zone; the server's text is UTC, which stays on hover ----------------- */

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const shortDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const wholeDay = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric" });

function dayWords(at) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);
  return { 0: "Today", 1: "Yesterday" }[days] ?? wholeDay.format(at);
}

function tellTimes() {
  for (const time of all("time[data-clock]")) {
    const at = new Date(time.dateTime);
    const isOfDay = time.dataset.clock !== "day" || dayWords(at) === "Today";
    time.textContent = isOfDay ? clock.format(at) : `${shortDay.format(at)}, ${clock.format(at)}`;
  }
  const heads = all(".mails [data-day]");
  if (!heads.length) return;
  const list = heads[0].parentElement;
  let last = "";
  for (const line of all(".mail", list)) {
    const at = new Date(one("time", line).dateTime);
    const words = dayWords(at);
    if (words !== last) {
      const head = heads[0].cloneNode(true);
      Object.assign(one("time", head), { textContent: words, dateTime: at.toISOString() });
      list.insertBefore(head, line);
    }
    last = words;
  }
  for (const head of heads) head.remove();
}

document.addEventListener("change", (event) => {
  if (event.target.id === "tick-all") {
    for (const box of all(".mail .pick input")) box.checked = event.target.checked;
  }
});

document.addEventListener("click", (event) => {
  for (const menu of all(".menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

/* --- pages that look again by themselves --------------------------------------------------------- */

let lookedAt = Date.now();

async function lookAgain() {
  const board = one("[data-refresh]");
  // whoever reads with the keyboard, or has something open, is not disturbed
  if (!board || document.hidden || board.contains(document.activeElement)) return;
  if (Date.now() - lookedAt < Number(board.dataset.refresh) * 1000 - 500) return;
  lookedAt = Date.now();
  const path = location.pathname + location.search.replace(/[?&](did|number)=[^&]*/g, "");
  await htmx.ajax("GET", path, { target: `#${board.id}`, select: `#${board.id}`, swap: "outerHTML" });
}

setInterval(lookAgain, 1000);
document.addEventListener("visibilitychange", lookAgain);

/* --- keys ---------------------------------------------------------------------------------------- */

const subjects = () => all(".mail-subject");

function step(by) {
  const way = one(by > 0 ? "[data-older]" : "[data-newer]");
  if (one("[data-message]")) {
    way?.click();
    return;
  }
  const links = subjects();
  if (!links.length) return;
  const at = links.findIndex((link) => link.closest(".mail").contains(document.activeElement));
  const next = links[Math.min(Math.max(at + by, 0), links.length - 1)];
  next.focus({ focusVisible: true });
  next.scrollIntoView({ block: "nearest" });
}

function current() {
  return document.activeElement?.closest(".mail") ?? null;
}

function act(action) {
  const form = one("#bulk");
  if (!form) return;
  if (!one(".mail .pick :checked", form)) {
    const box = current() && one(".pick input", current());
    if (!box) return;
    box.checked = true;
  }
  one(`.acts [value="${action}"]`, form)?.click();
}

function up() {
  const way = one("[data-up]");
  if (way) way.click();
  else if (inbox()?.dataset.query) location.assign(location.pathname);
}

function tick() {
  const box = current() && one(".pick input", current());
  if (box) box.click();
}

function choose(width) {
  one(`#width-${width}`)?.click();
}

function press(key) {
  const button = one(`[data-key="${key}"]`);
  button?.click();
  return button !== null;
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  o: () => (current() ? one(".mail-subject", current()).click() : undefined),
  u: up,
  x: tick,
  m: () => press("m") || act(current()?.classList.contains("is-unread") ? "read" : "unread"),
  r: () => press("r") || act("release"),
  h: () => press("h") || act("hold"),
  t: () => press("t") || act("retry"),
  "#": () => press("#") || act("delete"),
  "/": () => (one("#search") ? one("#search").select() : up()),
  "?": () => one("#keys")?.togglePopover(),
  1: () => choose("phone"),
  2: () => choose("tablet"),
  3: () => choose("desktop"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target;
  const isField = target.matches?.("input:not([type=checkbox], [type=radio]), textarea, select");
  if (event.key === "Escape") {
    for (const menu of all(".menu[open]")) menu.open = false;
    if (isField) target.blur();
    return;
  }
  const key = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (isField || !key) return;
  if (one(":popover-open") && event.key !== "?") return;
  event.preventDefault();
  key();
});

/* --- beginning, and after a piece of the page was replaced ------------------------------------------ */

document.addEventListener("htmx:afterSettle", () => {
  tellTimes();
  const field = one("#search");
  if (!inbox() || source?.list === inbox()) return;
  if (field && field !== document.activeElement) field.value = inbox().dataset.query;
  listen();
});
listen();
tellTimes();
