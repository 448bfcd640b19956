"use strict";

// Scatter plot of the first metric against cost, of the measured rows that the filters leave.
(() => {
  const height = 340, left = 48, right = 24, top = 16, bottom = 44;
  const labels = { par: "parameters (millions)", gmacs: "GMACs per clip", speed: "training clips per second" };

  const points = (panel, axis) => [...panel.querySelectorAll("tbody.measured tr.row:not([hidden])")].map((row) => {
    const value = (key) => parseFloat(row.querySelector(`[data-key="${key}"]`)?.dataset.sort);
    const main = row.querySelector("td.main");
    return {
      x: value(axis), y: parseFloat(main.dataset.sort), low: parseFloat(main.dataset.low), high: parseFloat(main.dataset.high),
      label: row.dataset.label, href: row.dataset.href,
    };
  }).filter((one) => one.x > 0 && !isNaN(one.y));

  // The axis is logarithmic: costs of methods differ by factors.
  const logTicks = (low, high, factors = [1, 2, 5]) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of factors) {
        const value = factor * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found.length < 3 && factors.length === 3 ? logTicks(low, high, [1, 1.5, 2, 3, 4, 5, 6, 8]) : found;
  };

  const draw = (holder) => {
    const panel = document.getElementById(holder.dataset.tab);
    const width = Math.max(300, Math.min(860, holder.clientWidth)); // text keeps its size on every screen
    const axis = panel.querySelector(".scatter-axis").value;
    const found = points(panel, axis);
    holder.replaceChildren();
    if (!found.length) {
      holder.append(avsb.element("p", { class: "dim" }, `No measured row has ${labels[axis]}.`));
      return;
    }
    const xs = found.map((one) => one.x), ends = found.flatMap((one) => [one.y, one.low, one.high]).filter((one) => !isNaN(one));
    const xLow = Math.min(...xs) / 1.6, xHigh = Math.max(...xs) * 1.6;
    const margin = Math.max(1, 0.1 * (Math.max(...ends) - Math.min(...ends)));
    const yLow = Math.max(-1, Math.min(...ends) - margin), yHigh = Math.min(101, Math.max(...ends) + margin);
    const x = (value) => left + (width - left - right) * (Math.log(value / xLow) / Math.log(xHigh / xLow));
    const y = (value) => height - bottom - (height - top - bottom) * ((value - yLow) / (yHigh - yLow));
    const metric = panel.dataset.metric;
    const chart = avsb.svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${metric} against ${labels[axis]}, ${found.length} points` });
    for (const tick of avsb.ticks(yLow, yHigh)) {
      chart.append(avsb.svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
        avsb.svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    }
    for (const tick of logTicks(xLow, xHigh)) {
      chart.append(avsb.svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4 }),
        avsb.svg("text", { x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, String(+tick.toPrecision(3))));
    }
    chart.append(avsb.svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
      avsb.svg("text", { class: "label", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, `${labels[axis]}, logarithmic`),
      avsb.svg("text", { class: "label", transform: `translate(12 ${(height - bottom + top) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${metric} (%)`));
    const taken = [];
    for (const one of [...found].sort((a, b) => b.y - a.y)) {
      const px = x(one.x), py = y(one.y), length = 5.8 * one.label.length;
      const after = px + 10 + length < width - 2, before = !after && px - 10 - length > left; // else above the point
      const link = avsb.svg("a", { href: one.href, "aria-label": `${one.label}: ${metric} ${one.y.toFixed(1)}, ${labels[axis]} ${one.x.toPrecision(3)}` });
      if (!isNaN(one.low) && !isNaN(one.high)) link.append(avsb.svg("line", { class: "error", x1: px, x2: px, y1: y(one.low), y2: y(one.high) }));
      link.append(avsb.svg("circle", { class: "ring", cx: px, cy: py, r: 9 }), avsb.svg("circle", { class: "dot", cx: px, cy: py, r: 5.5 }),
        avsb.svg("title", {}, `${one.label}: ${one.y.toFixed(1)}`));
      // Names that would overlap another one are left to the tooltip.
      const at = after ? px + 10 : before ? px - 10 : Math.min(Math.max(px, left + length / 2), width - length / 2);
      const box = { x: after ? at : before ? at - length : at - length / 2, y: after || before ? py - 7 : py - 24, w: length, h: 14 };
      if (!taken.some((other) => box.x < other.x + other.w && other.x < box.x + box.w && box.y < other.y + other.h && other.y < box.y + box.h)) {
        taken.push(box);
        link.append(avsb.svg("text", { class: "name", x: at, y: box.y + 11, "text-anchor": after ? "start" : before ? "end" : "middle" }, one.label));
      }
      chart.append(link);
    }
    holder.append(chart);
  };

  addEventListener("DOMContentLoaded", () => {
    for (const holder of document.querySelectorAll(".scatter")) {
      const choice = document.getElementById(holder.dataset.tab).querySelector(".scatter-axis");
      choice.addEventListener("change", () => { avsb.setState({ x: choice.value === "par" ? "" : choice.value }); draw(holder); });
      const wanted = avsb.state().get("x");
      if ([...choice.options].some((one) => one.value === wanted)) choice.value = wanted;
    }
  });
  addEventListener("resize", () => {
    const holder = document.querySelector(".panel:not([data-inactive]) .scatter");
    if (holder) draw(holder);
  });
  document.addEventListener("avsb-rows", (event) => {
    const holder = document.querySelector(`#${CSS.escape(event.detail)} .scatter`);
    if (holder) draw(holder);
  });
})();
