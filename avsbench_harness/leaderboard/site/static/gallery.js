"use strict";

// The gallery of a split: choice of runs, order, search and overlay, all in the address.
addEventListener("DOMContentLoaded", () => {
  const gallery = avsb.store.galleries?.[0];
  const form = document.getElementById("gallery-controls"), holder = document.getElementById("clips");
  if (!gallery) {
    holder.append(avsb.element("p", { class: "missing" }, "n/a: the data of this gallery is not available"));
    return;
  }
  const fields = form.elements;
  const boxes = [...form.querySelectorAll('[name="run"]')];
  const wanted = avsb.state();
  const first = (wanted.get("runs") ?? "").split(",").filter((key) => gallery.runs.some((run) => run.key === key));
  for (const box of boxes) box.checked = first.length ? first.includes(box.value) : box === boxes[0];
  for (const name of ["sort", "q", "mode"]) {
    const value = wanted.get(name);
    if (value && (name === "q" || [...(fields[name].options ?? fields[name])].some((one) => one.value === value))) fields[name].value = value;
  }
  fields.truth.checked = wanted.get("truth") !== "off";
  fields.prediction.checked = wanted.get("prediction") !== "off";
  const conditions = [...new Set(gallery.runs.flatMap((run) => run.conditions))];
  for (const name of conditions) fields.condition.append(avsb.element("option", { value: name }, name === "clean" ? "clean only" : `clean and ${name}`));
  document.getElementById("condition-choice").hidden = conditions.length < 2;
  if (conditions.includes(wanted.get("condition"))) fields.condition.value = wanted.get("condition");

  const runs = () => gallery.runs.filter((run) => boxes.some((box) => box.checked && box.value === run.key));
  const options = () => ({ mode: fields.mode.value, truth: fields.truth.checked, prediction: fields.prediction.checked, condition: fields.condition.value });

  // Disagreement is the range of scores over the chosen runs, or over all runs if fewer than two are chosen.
  const compared = () => (runs().length > 1 ? runs() : gallery.runs);
  const spread = (index) => {
    const values = compared().map((run) => run.scores[index]).filter((value) => value !== null);
    return values.length > 1 ? Math.max(...values) - Math.min(...values) : -1;
  };
  const mean = (index) => {
    const values = (runs().length ? runs() : gallery.runs).map((run) => run.scores[index]).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  };

  let disconnect = null;
  const order = () => {
    const words = fields.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const entries = gallery.clips.map((clip, index) => ({ ...clip, index }))
      .filter((clip) => words.every((word) => `${clip.id} ${clip.category}`.toLowerCase().includes(word)));
    const key = { best: (one) => -(mean(one.index) ?? 2), worst: (one) => mean(one.index) ?? 2, disagreement: (one) => -spread(one.index) }[fields.sort.value];
    entries.sort((a, b) => (key ? key(a) - key(b) : 0) || a.index - b.index);
    if (fields.sort.value === "best") entries.sort((a, b) => (mean(b.index) ?? -1) - (mean(a.index) ?? -1) || a.index - b.index);
    disconnect?.();
    disconnect = clipView.list(holder, gallery, entries, runs, options, (entry) => {
      const parts = [];
      if (runs().length > 1) parts.push(`mean ${avsb.percent(mean(entry.index))}`);
      const range = spread(entry.index);
      if (range >= 0) parts.push(`disagreement ${avsb.percent(range)}`);
      return parts.join(" · ");
    });
    form.querySelector(".shown").textContent = `${entries.length} of ${gallery.clips.length} clips`;
    clipView.legend(document.getElementById("legend"), options(), gallery.classes !== null);
  };
  const save = () => avsb.setState({
    runs: runs().map((run) => run.key).join(","), sort: fields.sort.value === "id" ? "" : fields.sort.value, q: fields.q.value,
    mode: fields.mode.value === "outline" ? "" : fields.mode.value, truth: fields.truth.checked ? "" : "off",
    prediction: fields.prediction.checked ? "" : "off", condition: fields.condition.value, clip: avsb.state().get("clip"),
  });

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    save();
    if (["run", "sort", "q"].includes(event.target.name)) order();
    else {
      clipView.legend(document.getElementById("legend"), options(), gallery.classes !== null);
      clipView.repaint(holder, gallery, runs(), options());
    }
  });
  order();
  const clip = wanted.get("clip");
  const article = [...holder.children].find((one) => one.dataset.clip === clip);
  if (article) { article.scrollIntoView(); article.focus(); }
});
