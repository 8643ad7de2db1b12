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

/* --- a list that renews itself ------------------------------------------------------------------ */

// a click is lost where its row is replaced, or moves, between the pointer's way down and up
const CLICK_MS = 100; // from the end of a touch to its click
const waiting = [];
let isPressed = false;

const released = () => new Promise((go) => (isPressed ? waiting.push(go) : go()));

document.addEventListener("pointerdown", ({ button }) => (isPressed = button === 0), true);
for (const end of ["pointerup", "pointercancel", "contextmenu", "blur"]) {
  const release = () => {
    isPressed = false;
    for (const go of waiting.splice(0)) go();
  };
  addEventListener(end, () => setTimeout(release, CLICK_MS), true);
}

async function renew(id, path) {
  const ticked = all(`#${id} .mail .pick :checked`).map((box) => box.value);
  await htmx.ajax("GET", path, { target: `#${id}`, select: `#${id}`, swap: "outerHTML" });
  for (const queueId of ticked) {
    const box = one(`#m-${queueId} .pick input`);
    if (box) box.checked = true;
  }
}

document.addEventListener("htmx:beforeSwap", async ({ detail }) => {
  const { elt, path } = detail.requestConfig;
  const isSearch = elt.matches("form[role=search]");
  const isRenewal = elt === document.body && detail.target.id !== "pane"; // that was asked for by a click
  if (!isPressed || !(isSearch || isRenewal)) return;
  detail.shouldSwap = false;
  await released();
  if (isSearch) htmx.trigger(elt, "submit");
  else renew(detail.target.id, path);
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
  // a list that is not seen takes no connection, unless somebody wants to be told of its mail
  if (!list?.offsetWidth || (document.hidden && !wantsNotices())) return;
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
  mine.addEventListener("change", async (event) => {
    await released();
    if (source === mine) apply(JSON.parse(event.data));
  });
  mine.addEventListener("again", listen);
  mine.addEventListener("out", () => location.reload()); // the session has ended
}

function reload() {
  if (inbox()) renew("inbox", location.href);
}

function apply(change) {
  const list = inbox();
  if (!list) return;
  const isFirst = list.dataset.page === "1";
  if (isFirst) notify(change);
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
  if (source && wantsNotices()) return; // it listens all the time
  // a page that nobody looks at takes no connection; it catches up when it is seen again
  wasLost = !document.hidden && inbox() !== null;
  listen();
});

/* --- notices on the desktop of new mail, if somebody wants them ------------------------------------ */

const canNotify = "Notification" in window && isSecureContext;
const MOST_NOTICES = 3; // of one moment

function wantsNotices() {
  return canNotify && Notification.permission === "granted" && kept("localStorage", "relaygw-notify") === "on";
}

function showNotify() {
  const button = one("#notify");
  if (!button) return;
  button.hidden = !canNotify;
  button.ariaPressed = String(wantsNotices());
  const isRefused = canNotify && Notification.permission === "denied";
  button.textContent = wantsNotices() ? "Notices are on" : isRefused ? "Notices are blocked" : "Notify me";
  button.title = isRefused ? "The browser does not allow notices of this site" : "A notice on the desktop for each new mail of this list";
}

document.addEventListener("click", async ({ target }) => {
  if (target.id !== "notify") return;
  const isWanted = !wantsNotices();
  if (isWanted) await Notification.requestPermission();
  keep("localStorage", "relaygw-notify", isWanted ? "on" : "off");
  showNotify();
});

function notice(title, body, path, tag) {
  try {
    const told = new Notification(title, { body, tag });
    told.addEventListener("click", () => {
      window.focus();
      location.assign(path);
    });
  } catch {
    // this browser wants a service worker for it
  }
}

function notify(change) {
  if (!wantsNotices() || (!document.hidden && document.hasFocus())) return;
  const fresh = change.rows.filter((row) => row.id > inbox().dataset.newest);
  if (change.reload || fresh.length > MOST_NOTICES) {
    const many = change.reload ? "Much" : fresh.length;
    notice(`${many} new ${change.reload ? "mail" : "messages"}`, "", location.href, "relaygw");
    return;
  }
  for (const row of fresh) {
    const holder = document.createElement("template");
    holder.innerHTML = row.html;
    const text = (part) => one(part, holder.content).textContent.trim();
    notice(text(".mail-subject"), `${text(".mail-from")} → ${text(".mail-to")}`, one(".mail-subject", holder.content).href, row.id);
  }
}

document.addEventListener("htmx:afterSettle", showNotify);
showNotify();

/* --- times of this browser's zone; the server's text is UTC, which stays on hover ----------------- */

const word = (options) => new Intl.DateTimeFormat("en", options);
const month = word({ month: "short" });
const longMonth = word({ month: "long" });
const weekday = word({ weekday: "long" });
const two = (number) => String(number).padStart(2, "0");
const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}`;
const seconds = (at) => `${clock(at)}:${two(at.getSeconds())}`;
const date = (at) => `${at.getDate()} ${month.format(at)} ${at.getFullYear()}`;
const shortDate = (at, now) => date(at).replace(` ${now.getFullYear()}`, "");
const daysAgo = (at, now) => Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);
const dayed = (at, now, text) => (daysAgo(at, now) ? `${shortDate(at, now)}, ${text}` : text);

function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 86_400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} d`;
}

// to the nearest number: five minutes that began just now are not four
function wait(ms) {
  const s = Math.floor(ms / 1000);
  const unit = s < 60 ? 1 : s < 3600 ? 60 : s < 86_400 ? 3600 : 86_400;
  return span(Math.round(ms / 1000 / unit) * unit * 1000);
}

const TIMES = {
  clock,
  minute: (at, now) => dayed(at, now, clock(at)),
  second: (at, now) => dayed(at, now, seconds(at)),
  exact: (at) => `${date(at)}, ${seconds(at)}`,
  date,
  day: (at, now) =>
    ["Today", "Yesterday"][daysAgo(at, now)] ??
    `${weekday.format(at)}, ${at.getDate()} ${longMonth.format(at)} ${at.getFullYear()}`,
  age: (at, now) => (now - at < 10_000 ? "now" : now - at < 604_800_000 ? span(now - at) : shortDate(at, now)),
  ago: (at, now) =>
    now - at < 10_000 ? "just now" : now - at < 604_800_000 ? `${span(now - at)} ago` : `on ${shortDate(at, now)}`,
  until: (at, now) => (at - now < 1000 ? "now" : `in ${wait(at - now)}`),
  due: (at, now) => (at - now < 1000 ? "due now" : `in ${wait(at - now)}`),
};

// days of a list begin where those of this zone do
function groupDays() {
  const head = one(".mails [data-day]");
  let last = "";
  for (const line of head ? all(".mail", head.parentElement) : []) {
    const time = one("time", line);
    const day = new Date(time.dateTime).toDateString();
    let mine = line.previousElementSibling?.matches("[data-day]") ? line.previousElementSibling : null;
    if (day === last) mine?.remove();
    else {
      mine ??= line.parentElement.insertBefore(head.cloneNode(true), line);
      Object.assign(one("time", mine), { dateTime: time.dateTime, title: time.title });
    }
    last = day;
  }
  for (const each of all(".mails [data-day]")) {
    if (!each.nextElementSibling?.matches(".mail")) each.remove();
  }
}

function tellTimes() {
  const now = new Date();
  groupDays();
  for (const time of all("[data-time]")) {
    const words = TIMES[time.dataset.time](new Date(time.getAttribute("datetime")), now);
    if (time.textContent !== words) time.textContent = words;
  }
  for (const title of all("[data-span]")) {
    const [start, end] = title.dataset.span.split(" ").map((each) => new Date(each));
    title.textContent = title.textContent.replace(/^.* UTC/, dayed(start, now, `${clock(start)}–${clock(end)}`));
    delete title.dataset.span;
  }
  comers.takeRecords(); // what was just written is nothing new
}

// whatever comes later, by htmx or events, is told before it is drawn
const comers = new MutationObserver((changes) => {
  if (changes.some((change) => [...change.addedNodes].some((node) => node.nodeType === 1))) tellTimes();
});
comers.observe(document.body, { childList: true, subtree: true });
setInterval(tellTimes, 10_000);
tellTimes();

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

/* --- a message ---------------------------------------------------------------------------------- */

const LEAST_PX = 160; // of the frame of a mail
const MOST_PX = 30_000; // what is higher scrolls in it
const isPhone = matchMedia("(max-width: 700px)");
let scrolled = null;
const widths = new Map();
const resized = new ResizeObserver((changes) => {
  for (const { target } of changes) if (widths.get(target) !== target.clientWidth) fit(target);
});

function fit(frame) {
  const view = frame.contentDocument?.scrollingElement; // none where it has no origin: decision 13
  widths.set(frame, frame.clientWidth);
  if (!view || !frame.clientWidth) return;
  const at = scrollY;
  const root = view.ownerDocument.documentElement;
  // seen in a low window: what is as high as its window would else never end; and without bars
  frame.height = LEAST_PX;
  root.style.scrollbarWidth = "none";
  const high = view.scrollHeight;
  root.style.scrollbarWidth = "";
  frame.height = Math.min(Math.max(high, LEAST_PX), MOST_PX);
  const bar = frame.clientHeight - view.clientHeight; // of what is too wide
  if (bar > 0) frame.height = Math.min(high + bar, MOST_PX);
  scrollTo({ top: at, behavior: "instant" });
}

function kept(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null; // storage is switched off
  }
}

function choose(width) {
  one(`#width-${width}`)?.click();
}

function keep(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch {
    // it holds for this page
  }
}

/* --- a message beside the list ------------------------------------------------------------------- */

const isWide = matchMedia("(min-width: 1400px)");
isWide.addEventListener("change", () => listen());

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("#inbox .mail-subject, #pane [data-newer], #pane [data-older]");
  const isPlain = !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (!link?.href || !one("#pane") || !isWide.matches || !isPlain) return;
  event.preventDefault();
  const how = { target: "#pane", select: "#pane", swap: "outerHTML show:window:top", push: "true" };
  htmx.ajax("GET", link.href, how);
});

function markOpen() {
  const opened = one("#pane [data-message]")?.dataset.message;
  for (const line of all("#inbox .mail")) {
    const isOpen = line.dataset.id === opened;
    line.classList.toggle("is-open", isOpen);
    if (isOpen) line.classList.remove("is-unread");
    one(".mail-subject", line).ariaCurrent = isOpen ? "true" : null;
  }
  if (isWide.matches) one("#inbox .mail.is-open")?.scrollIntoView({ block: "nearest" });
}

function arrange() {
  markOpen();
  scrolled?.disconnect();
  const bar = parseInt(getComputedStyle(document.body).getPropertyValue("--bar"), 10);
  scrolled = new IntersectionObserver(
    ([{ target, isIntersecting }]) => target.closest(".message").classList.toggle("is-scrolled", !isIntersecting),
    { rootMargin: `-${bar + 48}px 0px 0px` }, // the bar and the tools lie over it
  );
  for (const head of all("[data-head]")) scrolled.observe(head);
  for (const frame of all(".device iframe")) {
    resized.observe(frame);
    if (frame.contentDocument?.readyState === "complete") fit(frame);
  }
  if (!one(".widths") || one(".widths :checked")) return;
  choose(kept("sessionStorage", "relaygw-width") ?? (isPhone.matches ? "phone" : "desktop"));
}

// the load of a frame does not bubble
document.addEventListener("load", ({ target }) => target.matches?.(".device iframe") && fit(target), true);
document.addEventListener("change", ({ target }) => {
  if (target.name === "width") keep("sessionStorage", "relaygw-width", target.value);
});
document.addEventListener("htmx:afterSettle", arrange);
arrange();

/* --- a text to be copied ---------------------------------------------------------------------------- */

async function copy(button) {
  const text = one(`#${button.dataset.copy}`);
  getSelection().selectAllChildren(text); // seen, and what is left to do by hand where nobody may copy
  let isDone = false;
  try {
    await navigator.clipboard.writeText(text.textContent);
    isDone = true;
  } catch {
    isDone = document.execCommand("copy"); // without https there is no clipboard
  }
  one("[data-copied]").textContent = isDone ? "Copied." : "It is selected: copy it by Ctrl+C.";
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) copy(button);
});

/* --- pages that look again by themselves --------------------------------------------------------- */

let lookedAt = Date.now();

function lookAgain() {
  const board = one("[data-refresh]");
  // whoever reads with the keyboard, or has something open, is not disturbed
  if (!board || document.hidden || board.contains(document.activeElement)) return;
  if (Date.now() - lookedAt < Number(board.dataset.refresh) * 1000 - 500) return;
  lookedAt = Date.now();
  const path = location.pathname + location.search.replace(/[?&](did|number)=[^&]*/g, "");
  renew(board.id, path);
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
  return document.activeElement?.closest(".mail") ?? (isWide.matches ? one("#inbox .mail.is-open") : null);
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

// what is ticked comes before the message that is open
function decide(key, action) {
  const isTicked = isWide.matches && one("#bulk .mail .pick :checked") !== null;
  return isTicked ? act(action) : press(key) || act(action);
}

function press(key) {
  const button = one(`[data-key="${key}"]`);
  button?.click();
  return button !== null;
}

const box = () => all("#search-sandbox, #search").findLast((each) => each.offsetWidth); // the page's own one first

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  o: () => (current() ? one(".mail-subject", current()).click() : undefined),
  u: up,
  x: tick,
  m: () => decide("m", current()?.classList.contains("is-unread") ? "read" : "unread"),
  r: () => decide("r", "release"),
  h: () => decide("h", "hold"),
  t: () => decide("t", "retry"),
  "#": () => decide("#", "delete"),
  "/": () => (box() ? box().select() : up()),
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
  const field = one("#search-sandbox");
  if (!inbox()) source?.close(); // another list is in its place
  if (!inbox() || source?.list === inbox()) return;
  if (field && field !== document.activeElement) field.value = inbox().dataset.query;
  listen();
});
listen();
