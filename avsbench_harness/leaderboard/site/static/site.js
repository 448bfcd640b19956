"use strict";

// Shared by all pages: the receivers of data files, elements, the state in the address, the colour scheme.
// Text of records and data sets enters a page through textContent and attributes of fixed names only.
const avsb = (() => {
  document.documentElement.classList.add("js");

  // An element with attributes and children; strings become text.
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };

  const svg = (name, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // The state of a page in its address, after "#"; works from the file system and can be linked.
  const state = () => new URLSearchParams(location.hash.slice(1));
  const setState = (values) => {
    const parameters = state();
    for (const [key, value] of Object.entries(values)) {
      if (value) parameters.set(key, value);
      else parameters.delete(key);
    }
    const text = parameters.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  };

  // Load a data file once; the promise resolves when it has called its receiver.
  const loads = new Map();
  const load = (path) => {
    if (!loads.has(path)) {
      loads.set(path, new Promise((done, failed) => {
        const script = element("script", { src: path });
        script.onload = () => done();
        script.onerror = () => failed(new Error("missing: " + path));
        document.head.append(script);
      }));
    }
    return loads.get(path);
  };

  const percent = (value, sign = false) => {
    if (value === null || value === undefined) return "n/a";
    const text = (100 * value).toFixed(1);
    return sign && value >= 0 ? "+" + text : text;
  };

  // Round values from low to high, about count of them.
  const ticks = (low, high, count = 5) => {
    const raw = Math.max(high - low, 1e-9) / count;
    const magnitude = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * magnitude).find((one) => one >= raw * (1 - 1e-9));
    const found = [];
    for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9; index += 1) found.push(+(index * step).toFixed(10));
    return found;
  };

  const store = {};
  const receiver = (kind) => (values) => { (store[kind] ??= []).push(values); };

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const systemDark = matchMedia("(prefers-color-scheme: dark)");
    const current = () => document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light");
    const name = () => button.setAttribute("aria-label", `Colour scheme: ${current()}; switch`);
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = current() === "dark" ? "light" : "dark";
      try { localStorage.setItem("avsb-theme", document.documentElement.dataset.theme); } catch { /* not stored */ }
      name();
    });
    name();
  });
  try {
    const theme = localStorage.getItem("avsb-theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch { /* the file system may have no storage */ }

  return {
    element, svg, state, setState, load, percent, ticks, store,
    receiveGallery: receiver("galleries"), receiveClip: receiver("clips"), receiveMasks: receiver("masks"),
    receiveRuns: receiver("runs"), receiveRun: receiver("run"), receiveInputs: () => {},
  };
})();
