"use strict";

// The leaderboard: tabs, sorting, filters and folded rows. Tab, filters and sorting are in the address.
(() => {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const panels = [...document.querySelectorAll(".panel")];
  const filterNames = ["q", "kind", "backbone", "variant", "recipe"];

  // Tabs: a click or the arrow keys select.
  const select = (id, focus) => {
    for (const tab of tabs) {
      const active = tab.dataset.tab === id;
      tab.setAttribute("aria-selected", active);
      tab.tabIndex = active ? 0 : -1;
      if (active && focus) tab.focus();
    }
    for (const panel of panels) panel.toggleAttribute("data-inactive", panel.id !== id);
    document.dispatchEvent(new CustomEvent("avsb-rows", { detail: id }));
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => { select(tab.dataset.tab); save(tab.dataset.tab); restore(); });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : step && (index + step + tabs.length) % tabs.length;
      if (next === undefined) return;
      event.preventDefault();
      select(tabs[next].dataset.tab, true);
      save(tabs[next].dataset.tab);
      restore();
    });
  });
  const save = (id) => avsb.setState({ tab: id });

  // Sorting: measured rows stay above reported ones; rows without a value are last.
  const cellOf = (row, key) => row.querySelector(`[data-key="${key}"]`);
  const sort = (panel, key, descending) => {
    const heads = [...panel.querySelectorAll(".board > thead th[data-key]")];
    const head = heads.find((one) => one.dataset.key === key);
    if (!head) return;
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const number = head.classList.contains("num") && key !== "date";
    for (const body of panel.querySelectorAll(".board > tbody")) {
      const rows = [...body.querySelectorAll(":scope > tr.row")].map((row, index) => {
        const text = cellOf(row, key)?.dataset.sort ?? "";
        return { row, detail: row.nextElementSibling, index, text, value: number ? parseFloat(text) : text };
      });
      const known = (one) => (number ? !isNaN(one.value) : one.text !== "");
      rows.sort((a, b) => {
        if (known(a) !== known(b)) return known(a) ? -1 : 1;
        const order = !known(a) ? 0 : number ? a.value - b.value : a.text.localeCompare(b.text);
        return (descending ? -order : order) || a.index - b.index;
      });
      for (const { row, detail } of rows) body.append(row, detail);
    }
  };

  // Filters hide rows; the number of rows left is announced.
  const filter = (panel) => {
    const form = panel.querySelector(".filters");
    const wanted = Object.fromEntries(filterNames.map((name) => [name, form.elements[name].value]));
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const row of panel.querySelectorAll(".board tr.row")) {
      const data = row.dataset;
      const text = (row.textContent + " " + row.nextElementSibling.textContent).toLowerCase();
      const keep = (!wanted.kind || data.kind === wanted.kind)
        && (!wanted.backbone || data.backbone.split("\n").includes(wanted.backbone))
        && (!wanted.variant || data.variant === wanted.variant)
        && (!wanted.recipe || data.recipe === wanted.recipe)
        && words.every((word) => text.includes(word));
      row.hidden = !keep;
      row.nextElementSibling.hidden = !keep;
      total += 1;
      shown += keep;
    }
    for (const divider of panel.querySelectorAll(".divider")) {
      divider.hidden = !divider.parentElement.querySelector("tr.row:not([hidden])");
    }
    panel.querySelector(".empty").hidden = shown > 0;
    panel.querySelector(".shown").textContent = (shown === total ? String(total) : `${shown} of ${total}`) + (total === 1 ? " row" : " rows");
    document.dispatchEvent(new CustomEvent("avsb-rows", { detail: panel.id }));
  };

  for (const panel of panels) {
    const form = panel.querySelector(".filters");
    const changed = () => {
      filter(panel);
      avsb.setState(Object.fromEntries(filterNames.map((name) => [name, form.elements[name].value])));
    };
    form.addEventListener("input", changed);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => { changed(); avsb.setState({ sort: "" }); resetSort(panel); }));
    for (const head of panel.querySelectorAll(".board > thead th[data-key]")) {
      head.querySelector("button").addEventListener("click", () => {
        const current = head.getAttribute("aria-sort");
        // Scores are sorted best first; a second click reverses the order.
        const first = head.classList.contains("num") && !["rank", "par", "gmacs"].includes(head.dataset.key);
        const descending = current ? current === "ascending" : first;
        sort(panel, head.dataset.key, descending);
        avsb.setState({ sort: head.dataset.key + (descending ? ":desc" : ":asc") });
      });
    }
    for (const button of panel.querySelectorAll(".unfold")) {
      button.addEventListener("click", () => {
        const open = button.getAttribute("aria-expanded") !== "true";
        button.setAttribute("aria-expanded", open);
        button.closest("tr").nextElementSibling.classList.toggle("open", open);
      });
    }
  }

  // Without a chosen column, measured rows are by rank and reported rows by their first metric.
  const resetSort = (panel) => {
    const key = panel.querySelector(".board td.main")?.dataset.key;
    if (key) sort(panel, key, true);
    if (panel.querySelector("tbody.measured tr.row")) {
      const heads = [...panel.querySelectorAll(".board > thead th[data-key]")];
      const body = panel.querySelector("tbody.measured");
      const rows = [...body.querySelectorAll(":scope > tr.row")].map((row) => [row, row.nextElementSibling]);
      rows.sort(([a], [b]) => +cellOf(a, "rank").dataset.sort - +cellOf(b, "rank").dataset.sort);
      for (const pair of rows) body.append(...pair);
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      heads.find((one) => one.dataset.key === "rank").setAttribute("aria-sort", "ascending");
    }
  };

  // The state of the address; unknown values are ignored.
  const restore = () => {
    const state = avsb.state();
    const panel = panels.find((one) => !one.hasAttribute("data-inactive"));
    if (!panel) return;
    const form = panel.querySelector(".filters");
    for (const name of filterNames) {
      const field = form.elements[name], value = state.get(name) ?? "";
      field.value = field.options && ![...field.options].some((one) => one.value === value) ? "" : value;
    }
    const [key, order] = (state.get("sort") ?? "").split(":");
    if (key && [...panel.querySelectorAll("th[data-key]")].some((one) => one.dataset.key === key)) sort(panel, key, order === "desc");
    else resetSort(panel);
    filter(panel);
  };
  const start = () => {
    const wanted = avsb.state().get("tab");
    const found = tabs.find((tab) => tab.dataset.tab === wanted) ?? tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
    if (found) select(found.dataset.tab);
    restore();
  };
  addEventListener("hashchange", start);
  addEventListener("DOMContentLoaded", start);
})();
