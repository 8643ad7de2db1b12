// Runs before the page is drawn, so that a chosen theme does not flash.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("relaygw-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // storage is switched off: the system's theme it is
  }
})();
