// What the pages need beyond the theme: a box that filters the table of claims (without scripts all rows are shown), and
// formulas that are wider than their place: they scroll, by keyboard too.
"use strict";

function addFilter(place) {
  const tables = [...document.querySelectorAll(place.dataset.table)];
  const rows = tables.flatMap((table) => [...table.tBodies].flatMap((body) => [...body.rows]));
  const label = document.createElement("label");
  label.htmlFor = "claims-words";
  label.textContent = "Show claims that contain";
  const input = document.createElement("input");
  input.type = "search";
  input.id = "claims-words";
  input.placeholder = "e.g. BatchNorm, deck 002, not reproduced";
  const count = document.createElement("output");
  count.htmlFor = "claims-words";
  place.className = "claims-filter";
  place.append(label, input, count);

  const texts = rows.map((row) => row.textContent.toLowerCase());
  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    for (const table of tables) {
      const section = table.closest("section");
      section.hidden = [...table.tBodies[0].rows].every((row) => row.hidden);
    }
    count.textContent = `${shown} of ${rows.length}`;
  }
  input.addEventListener("input", filter);
  filter();
}

function tameFormulas() {
  for (const formula of document.querySelectorAll("div.math, div.math > mjx-container")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0; // so that the keyboard can scroll it
  }
  for (const formula of document.querySelectorAll("span.math > mjx-container")) {
    const room = formula.closest("p, li, td, dd, th, summary") ?? document.body;
    if (formula.offsetWidth > room.clientWidth) {
      formula.parentElement.classList.add("wide-formula");
      formula.parentElement.tabIndex = 0;
    }
  }
}

function ready() {
  document.querySelectorAll("#claims-filter").forEach(addFilter);
  window.MathJax?.startup?.promise?.then(tameFormulas);
  addEventListener("resize", tameFormulas);
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
else ready();
