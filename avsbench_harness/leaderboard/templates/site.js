"use strict";

// The leading number of a cell; NaN for other text, including dates.
const leadingNumber = (text) => (/^-?[\d.]+(e[-+]?\d+)?(\s|$)/i.test(text) ? parseFloat(text) : NaN);

// Tables: a click on a heading sorts by that column, a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[Math.min(column, row.cells.length - 1)];
        return cell.dataset.sort ?? cell.textContent.trim();
      };
      const compare = (one, two) => {
        const [a, b] = [key(one), key(two)];
        const [x, y] = [leadingNumber(a), leadingNumber(b)];
        return isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, two) => (ascending ? compare(one, two) : compare(two, one)));
      table.tBodies[0].append(...rows);
    });
  });
}

// The leaderboard: show only the rows with the selected backbone.
const backbone = document.getElementById("backbone");
if (backbone) {
  backbone.addEventListener("change", () => {
    for (const row of document.querySelectorAll("tr[data-backbone]")) {
      row.hidden = backbone.value !== "" && row.dataset.backbone !== backbone.value;
    }
  });
}

// The comparison: one run per frame; the selection is kept in the URL.
const selection = new URLSearchParams(location.hash.slice(1));
for (const side of ["a", "b"]) {
  const choice = document.getElementById(side);
  if (!choice || !choice.options.length) continue;
  const show = () => {
    document.getElementById("frame-" + side).src = choice.value;
    selection.set(side, choice.value);
    history.replaceState(null, "", "#" + selection);
  };
  const index = [...choice.options].findIndex((option) => option.value === selection.get(side));
  choice.selectedIndex = index >= 0 ? index : side === "a" ? 0 : Math.min(1, choice.options.length - 1);
  choice.addEventListener("change", show);
  show();
}
