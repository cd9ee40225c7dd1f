// SPDX-License-Identifier: Apache-2.0
// Runs before the page is drawn, so that a chosen theme does not flash; everything else is a module.
"use strict";
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* storage is refused: the system's theme it is */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
