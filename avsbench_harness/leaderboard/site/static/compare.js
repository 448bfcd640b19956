"use strict";

// Comparison of two or more runs on the same ground truth. The choice is in the address.
addEventListener("DOMContentLoaded", () => {
  const all = avsb.store.runs?.[0] ?? [];
  const root = document.body.dataset.root;
  const data = document.getElementById("solution"), list = document.getElementById("run-list");
  const search = document.getElementById("choice-search"), holder = document.getElementById("comparison");
  if (!all.length) {
    holder.append(avsb.element("p", { class: "note" }, "There are no scored runs yet."));
    document.getElementById("choice").hidden = true;
    return;
  }
  const groups = new Map(all.map((run) => [`${run.task} ${run.solution}`, `${run.task.toUpperCase()}: ${run.data} (${run.solution})`]));
  for (const [key, label] of groups) data.append(avsb.element("option", { value: key }, label));
  const groupOf = (run) => `${run.task} ${run.solution}`;
  const wanted = (avsb.state().get("runs") ?? "").split(",");
  let chosen = wanted.filter((key) => all.some((run) => run.key === key));
  const firstRun = all.find((run) => run.key === chosen[0]);
  if (firstRun) data.value = groupOf(firstRun);
  else {
    const sizes = [...groups.keys()].map((key) => [all.filter((run) => groupOf(run) === key).length, key]);
    data.value = sizes.sort((a, b) => b[0] - a[0])[0][1];
    chosen = all.filter((run) => groupOf(run) === data.value).slice(0, 2).map((run) => run.key);
  }

  const showList = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.replaceChildren(...all.filter((run) => groupOf(run) === data.value).map((run) => {
      const box = avsb.element("input", { type: "checkbox", value: run.key });
      box.checked = chosen.includes(run.key);
      box.addEventListener("change", () => {
        chosen = box.checked ? [...chosen, run.key] : chosen.filter((key) => key !== run.key);
        show();
      });
      const row = avsb.element("label", {}, box, avsb.element("span", {}, run.label), avsb.element("code", { class: "dim" }, run.id), avsb.element("span", { class: "dim" }, run.preset));
      row.hidden = !words.every((word) => `${run.label} ${run.id} ${run.preset}`.toLowerCase().includes(word));
      return row;
    }));
  };

  const cell = (name, attributes, ...children) => avsb.element(name, attributes, ...children);
  const table = (caption, heads, rows) => avsb.element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    avsb.element("table", { class: "plain" }, avsb.element("thead", {}, avsb.element("tr", {}, ...heads.map((text, index) => cell("th", { scope: "col", class: index ? "num" : null }, text)))),
      avsb.element("tbody", {}, ...rows)));

  // The 95 % interval of a difference on the same resamples: percentiles 2.5 and 97.5, interpolated linearly.
  const quantile = (sorted, share) => {
    const place = share * (sorted.length - 1), low = Math.floor(place);
    return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  };
  const interval = (a, b, sameClips) => {
    if (!sameClips || !a.resampled || !b.resampled || a.resampled.length !== b.resampled.length) return null;
    const differences = a.resampled.map((value, index) => (value === null || b.resampled[index] === null ? null : value - b.resampled[index])).filter((value) => value !== null);
    differences.sort((one, two) => one - two);
    return differences.length ? [quantile(differences, 0.025), quantile(differences, 0.975)] : null;
  };

  const scores = (runs) => {
    const [base, ...others] = runs;
    const sameClips = (run) => run.clips.length === base.clips.length && run.clips.every((clip, index) => clip === base.clips[index]);
    const rows = base.metrics.map((metric) => {
      const cells = [cell("th", { scope: "row" }, metric.name)];
      const show = (value) => (metric.name === "classes_seen" ? String(value ?? "n/a") : avsb.percent(value));
      cells.push(cell("td", { class: "num" }, show(metric.value)));
      for (const other of others) {
        const own = other.metrics.find((one) => one.name === metric.name) ?? { value: null };
        const both = metric.value !== null && own.value !== null && metric.name !== "classes_seen";
        const range = both ? interval(own, metric, sameClips(other)) : null;
        const significant = range && (range[0] > 0 || range[1] < 0);
        const change = both ? own.value - metric.value : null;
        cells.push(cell("td", { class: "num" }, show(own.value),
          both ? cell("span", { class: "spread" + (significant ? ` significant ${change > 0 ? "better-text" : "worse-text"}` : "") },
            `${avsb.percent(change, true)}${range ? ` (${avsb.percent(range[0], true)} to ${avsb.percent(range[1], true)})` : ""}`) : ""));
      }
      return avsb.element("tr", { class: base.main.includes(metric.name) ? "main" : null }, ...cells);
    });
    return avsb.element("section", { class: "card" }, avsb.element("h2", {}, "Scores"),
      avsb.element("p", { class: "dim" }, `Protocol ${base.protocol}, in percent. Below each value: difference to the first run with its 95 % interval; bold intervals exclude 0.`),
      table("Scores", ["Metric", ...runs.map((run) => run.label)], rows));
  };

  const differing = (title, runs, name) => {
    const keys = [...new Set(runs.flatMap((run) => run[name].map(([key]) => key)))];
    const rows = keys.map((key) => [key, runs.map((run) => run[name].find(([other]) => other === key)?.[1] ?? "n/a")]).filter(([, values]) => new Set(values).size > 1)
      .map(([key, values]) => avsb.element("tr", {}, cell("th", { scope: "row" }, key), ...values.map((value) => cell("td", { class: "num" }, value))));
    const same = keys.length - rows.length;
    return avsb.element("section", { class: "card" }, avsb.element("h2", {}, title),
      rows.length ? table(title, ["Key", ...runs.map((run) => run.label)], rows) : avsb.element("p", { class: "dim" }, "No differences."),
      rows.length ? avsb.element("p", { class: "dim" }, `${same} further values are equal.`) : "");
  };

  // Score of every clip, first run against another one; a point leads to its clip below.
  const pair = (base, other, metric) => {
    const size = 320, edge = 40, at = (value) => edge + (size - edge - 10) * value;
    const chart = avsb.svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "group", "aria-label": `${metric} per clip: ${other.label} against ${base.label}` });
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      chart.append(avsb.svg("line", { class: "grid", x1: at(0), x2: at(1), y1: size - at(tick), y2: size - at(tick) }), avsb.svg("line", { class: "grid", y1: size - at(0), y2: size - at(1), x1: at(tick), x2: at(tick) }),
        avsb.svg("text", { x: at(0) - 4, y: size - at(tick) + 4, "text-anchor": "end" }, String(100 * tick)), avsb.svg("text", { x: at(tick), y: size - at(0) + 14, "text-anchor": "middle" }, String(100 * tick)));
    }
    chart.append(avsb.svg("line", { class: "axis", x1: at(0), y1: size - at(0), x2: at(1), y2: size - at(1) }),
      avsb.svg("text", { class: "label", x: at(0.5), y: size - 6, "text-anchor": "middle" }, `${metric} of ${base.label} (%)`),
      avsb.svg("text", { class: "label", transform: `translate(10 ${size - at(0.5)}) rotate(-90)`, "text-anchor": "middle" }, `${metric} of ${other.label} (%)`));
    let better = 0, worse = 0;
    base.clips.forEach((clip, index) => {
      const place = other.clips.indexOf(clip), a = base.scores[metric]?.[index], b = place < 0 ? null : other.scores[metric]?.[place];
      if (a === null || a === undefined || b === null || b === undefined) return;
      if (b > a) better += 1; else if (b < a) worse += 1;
      const dot = avsb.svg("circle", { cx: at(a), cy: size - at(b), r: 3.5 }, avsb.svg("title", {}, `${clip}: ${avsb.percent(a)} and ${avsb.percent(b)}`));
      const link = avsb.svg("a", { href: "#", tabindex: "-1" }, dot);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const article = [...document.querySelectorAll("#comparison .clip")].find((one) => one.entry.id === clip);
        article?.scrollIntoView({ block: "center" });
        article?.focus();
      });
      chart.append(link);
    });
    return avsb.element("figure", {}, chart, avsb.element("figcaption", {}, `${other.label}: better on ${better}, worse on ${worse} of ${base.clips.length} clips.`));
  };

  let turn = 0;
  const clips = async (runs, place, now) => {
    const names = new Set(runs.map((run) => run.gallery));
    if (names.size > 1 || names.has("")) {
      place.append(avsb.element("p", { class: "missing" }, "n/a: clips (the submissions, ground truth or data of these runs were not available when the site was built)"));
      return;
    }
    const [name] = names;
    await avsb.load(`${root}clips/${name}.js`);
    const gallery = avsb.store.galleries.find((one) => runs.every((run) => one.runs.some((own) => own.key === run.key)));
    if (now !== turn || !gallery) return;
    const shown = runs.map((run) => gallery.runs.find((own) => own.key === run.key));
    const entries = gallery.clips.map((clip, index) => {
      const values = shown.map((run) => run.scores[index]).filter((value) => value !== null);
      return { ...clip, range: values.length > 1 ? Math.max(...values) - Math.min(...values) : -1 };
    }).sort((a, b) => b.range - a.range);
    const options = { mode: "outline", truth: true, prediction: true, condition: "clean" };
    const mode = avsb.element("select", {}, avsb.element("option", { value: "outline" }, "outline"), avsb.element("option", { value: "fill" }, "fill"), avsb.element("option", { value: "error" }, "error map"));
    const legend = avsb.element("div", { class: "legend" }), holder = avsb.element("div");
    mode.addEventListener("change", () => {
      options.mode = mode.value;
      clipView.legend(legend, options, gallery.classes !== null);
      clipView.repaint(holder, gallery, shown, options);
    });
    clipView.legend(legend, options, gallery.classes !== null);
    place.append(avsb.element("div", { class: "filters" }, avsb.element("label", {}, "Overlay", mode)), legend, holder);
    clipView.list(holder, gallery, entries, () => shown, () => options, (entry) => (entry.range >= 0 ? `difference ${avsb.percent(entry.range)}` : ""));
  };

  const show = async () => {
    const now = turn += 1;
    avsb.setState({ runs: chosen.join(",") });
    if (chosen.length < 2) {
      holder.replaceChildren(avsb.element("p", { class: "note" }, "Choose at least two runs."));
      return;
    }
    try {
      await Promise.all(chosen.map((key) => avsb.load(`${root}data/${key}.js`)));
    } catch (error) {
      holder.replaceChildren(avsb.element("p", { class: "missing" }, `n/a: ${error.message}`));
      return;
    }
    if (now !== turn) return;
    const runs = chosen.map((key) => avsb.store.run.find((run) => run.key === key));
    const metric = runs[0].main[0];
    const place = avsb.element("section", { class: "clips-side" }, avsb.element("h2", {}, "Clips, largest difference first"));
    const links = avsb.element("p", { class: "links" }, ...runs.map((run) => avsb.element("a", { class: "button", href: `${root}runs/${run.key}.html` }, run.label)));
    const perClip = avsb.element("section", { class: "card" }, avsb.element("h2", {}, `${metric} per clip`), avsb.element("div", { class: "pairs" }, ...runs.slice(1).map((run) => pair(runs[0], run, metric))));
    holder.replaceChildren(links, avsb.element("div", { class: "columns" }, scores(runs), perClip),
      differing("Recipe", runs, "recipe"), differing("Environment", runs, "environment"), place);
    clips(runs, place, now).catch((error) => place.append(avsb.element("p", { class: "missing" }, `n/a: clips (${error.message})`)));
  };

  document.getElementById("choice").addEventListener("submit", (event) => event.preventDefault());
  data.addEventListener("change", () => {
    chosen = all.filter((run) => groupOf(run) === data.value).slice(0, 2).map((run) => run.key);
    showList();
    show();
  });
  search.addEventListener("input", showList);
  document.getElementById("clear").addEventListener("click", () => { chosen = []; showList(); show(); });
  showList();
  show();
});
