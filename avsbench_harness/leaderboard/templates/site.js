"use strict";

// The number that a cell begins with; a date begins with none.
const number = (text) => (/^-?[\d.]+(e[-+]?\d+)?(\s|$)/i.test(text) ? parseFloat(text) : NaN);

// Tables: a click on a heading sorts by it, a second one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[Math.min(column, row.cells.length - 1)];
        return cell.dataset.sort ?? cell.textContent.trim();
      };
      const order = (one, two) => {
        const [a, b] = [key(one), key(two)];
        const [x, y] = [number(a), number(b)];
        return isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
      };
      const rows = [...table.tBodies[0].rows].sort((one, two) => (up ? order(one, two) : order(two, one)));
      table.tBodies[0].append(...rows);
    });
  });
}

// The leaderboard: rows of one backbone.
const backbone = document.getElementById("backbone");
if (backbone) {
  backbone.addEventListener("change", () => {
    for (const row of document.querySelectorAll("tr[data-backbone]")) {
      row.hidden = backbone.value !== "" && row.dataset.backbone !== backbone.value;
    }
  });
}

// The comparison: two runs in two frames; the address keeps the choice.
const wanted = new URLSearchParams(location.hash.slice(1));
for (const side of ["a", "b"]) {
  const choice = document.getElementById(side);
  if (!choice || !choice.options.length) continue;
  const show = () => {
    document.getElementById("frame-" + side).src = choice.value;
    wanted.set(side, choice.value);
    history.replaceState(null, "", "#" + wanted);
  };
  const asked = [...choice.options].findIndex((option) => option.value === wanted.get(side));
  choice.selectedIndex = asked >= 0 ? asked : side === "a" ? 0 : Math.min(1, choice.options.length - 1);
  choice.addEventListener("change", show);
  show();
}
