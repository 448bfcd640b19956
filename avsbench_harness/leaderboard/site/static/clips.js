"use strict";

// A clip with the predictions of runs: frames, overlays of ground truth and prediction, and the waveform below.
const clipView = (() => {
  const root = document.body.dataset.root;
  // Yellow and blue differ in lightness and hue for readers with any colour vision; dark edges keep both visible
  // on every picture, and the prediction's outline is dashed.
  const truthColour = [255, 214, 10], predictionColour = [0, 150, 255], bothColour = [255, 255, 255], wrongColour = [230, 60, 190];
  // Classes of a clip get these colours in the order in which they occur (Okabe and Ito).
  const classColours = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [255, 255, 255], [0, 114, 178]];

  // The labels of a PNG in base64: one byte per pixel.
  const decode = (text) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      const labels = new Uint8Array(canvas.width * canvas.height);
      for (let index = 0; index < labels.length; index += 1) labels[index] = pixels[4 * index];
      done({ width: canvas.width, height: canvas.height, labels });
    };
    image.onerror = failed;
    image.src = "data:image/png;base64," + text;
  });

  const found = (kind, matches) => (avsb.store[kind] ?? []).find(matches);
  const media = (gallery, name) => `${root}${gallery.media}/${name}`;
  const loadClip = async (gallery, key) => {
    await avsb.load(media(gallery, `${key}.js`));
    return found("clips", (one) => one.key === key);
  };
  const loadMasks = async (gallery, run, key) => {
    await avsb.load(media(gallery, `${run}/${key}.js`));
    return found("masks", (one) => one.run === run && one.key === key);
  };

  // Whether a pixel is at the edge of its label; frames are side by side and do not touch.
  const isEdge = (mask, index, reach) => {
    const { width, height, labels } = mask, size = height, x = index % width, y = (index / width) | 0, own = labels[index];
    const low = x - (x % size), high = low + size - 1;
    for (const [dx, dy] of [[reach, 0], [-reach, 0], [0, reach], [0, -reach]]) {
      const nx = x + dx, ny = y + dy;
      if (nx < low || nx > high || ny < 0 || ny >= height) continue;
      if (labels[ny * width + nx] !== own) return true;
    }
    return false;
  };

  const present = (...masks) => {
    const seen = new Set();
    for (const mask of masks) if (mask) for (const label of mask.labels) if (label) seen.add(label);
    return [...seen].sort((a, b) => a - b);
  };
  const colourOf = (classes, label) => classColours[classes.indexOf(label) % classColours.length];

  // Draw the overlay of one strip into a canvas.
  const paint = (canvas, truth, prediction, options, classes) => {
    canvas.width = truth.width;
    canvas.height = truth.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(truth.width, truth.height), data = image.data;
    const put = (index, colour, alpha) => {
      data[4 * index] = colour[0]; data[4 * index + 1] = colour[1]; data[4 * index + 2] = colour[2]; data[4 * index + 3] = alpha;
    };
    const { width } = truth, semantic = classes !== null;
    const layers = [];
    if (options.truth) layers.push({ mask: truth, colour: truthColour, dashed: false });
    if (options.prediction && prediction) layers.push({ mask: prediction, colour: predictionColour, dashed: true });
    for (let index = 0; index < truth.labels.length; index += 1) {
      const t = truth.labels[index], p = prediction ? prediction.labels[index] : 0;
      const x = index % width, y = (index / width) | 0;
      if (options.mode === "error" && prediction) {
        // Differences have patterns besides colours: missed is striped, false is dotted.
        if (t && p && t === p) put(index, bothColour, 110);
        else if (t && p) put(index, wrongColour, 220);
        else if (t) put(index, truthColour, (x + y) % 8 < 5 ? 235 : 120);
        else if (p) put(index, predictionColour, x % 6 < 4 && y % 6 < 4 ? 235 : 120);
        else put(index, [0, 0, 0], 70);
      } else if (options.mode === "fill") {
        for (const layer of layers) {
          const label = layer.mask.labels[index];
          if (!label) continue;
          const both = !semantic && layers.length === 2 && t && p;
          const colour = semantic ? colourOf(classes, label) : both ? bothColour : layer.colour;
          put(index, colour, layer.dashed && semantic && layers.length === 2 ? ((x + y) % 6 < 3 ? 235 : 110) : 150);
        }
      }
    }
    if (options.mode !== "error") {
      for (const layer of layers) outline(layer, put, options.mode === "outline" || layers.length === 1, semantic && options.mode === "outline" ? classes : null);
    }
    context.putImageData(image, 0, 0);
    context.fillStyle = "#000"; // frames are told apart by a line
    for (let x = truth.height; x < truth.width; x += truth.height) context.fillRect(x - 1, 0, 2, truth.height);
  };

  // The outline of a layer: a light core with a dark edge outside of it.
  const outline = (layer, put, strong) => {
    const { mask, colour, dashed } = layer, { labels, width } = mask;
    for (let index = 0; index < labels.length; index += 1) {
      const x = index % width, y = (index / width) | 0;
      const gap = dashed && (x + y) % 12 >= 8;
      if (labels[index]) {
        if (isEdge(mask, index, 1) || isEdge(mask, index, 2)) put(index, gap ? [0, 0, 0] : colour, gap ? 150 : 255);
      } else if (strong && (isEdge(mask, index, 1) || isEdge(mask, index, 2))) put(index, [0, 0, 0], 190);
    }
  };

  // One recording at a time, one second of it.
  const player = { audio: null, button: null, timer: 0 };
  const stop = () => {
    clearTimeout(player.timer);
    player.audio?.pause();
    player.button?.classList.remove("playing");
    player.button = null;
  };
  const play = (source, second, button) => {
    const again = player.button === button;
    stop();
    if (again) return;
    if (!player.audio || player.audio.dataset.source !== source) {
      player.audio = new Audio(source);
      player.audio.dataset.source = source;
    }
    const { audio } = player;
    player.button = button;
    button.classList.add("playing");
    const begin = () => {
      audio.currentTime = second;
      audio.play().then(() => { player.timer = setTimeout(stop, 1000); }, stop);
    };
    if (audio.readyState >= 1) begin();
    else { audio.addEventListener("loadedmetadata", begin, { once: true }); audio.load(); }
  };

  const waveform = (gallery, sound, seconds) => {
    if (!sound || !sound.audio) return avsb.element("div", { class: "wave silent" }, "no recording");
    const chart = avsb.svg("svg", { viewBox: `0 -100 ${sound.peaks.length} 200`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const upper = sound.peaks.map((peak, index) => `L${index} ${-Math.max(1, peak * 0.92)}L${index + 0.8} ${-Math.max(1, peak * 0.92)}`).join("");
    const lower = [...sound.peaks.keys()].reverse().map((index) => `L${index + 0.8} ${Math.max(1, sound.peaks[index] * 0.92)}L${index} ${Math.max(1, sound.peaks[index] * 0.92)}`).join("");
    chart.append(avsb.svg("path", { d: `M0 0${upper}${lower}Z` }));
    const buttons = avsb.element("div", { class: "seconds" });
    for (let second = 0; second < seconds; second += 1) {
      const button = avsb.element("button", { type: "button", "aria-label": `Play second ${second + 1}`, title: `Play second ${second + 1}` }, avsb.element("span", {}, `${second + 1}`));
      button.addEventListener("click", () => play(media(gallery, sound.audio), second, button));
      buttons.append(button);
    }
    return avsb.element("div", { class: "wave" }, chart, buttons);
  };

  const score = (gallery, value) => (value === null || value === undefined ? "" : `${gallery.metric} ${avsb.percent(value)}`);

  // One strip: frames with the overlay, and the waveform of the recording that the run had.
  const strip = async (gallery, entry, clip, truth, run, shown, options) => {
    const source = shown.source ? await loadClip(gallery, shown.source).catch(() => null) : clip;
    const canvas = avsb.element("canvas", { role: "img", "aria-label": `Overlay on ${entry.id}: ${run.label}, ${shown.condition}` });
    const prediction = shown.mask ? await decode(shown.mask) : null;
    const classes = gallery.classes ? present(truth, prediction) : null;
    paint(canvas, truth, prediction, options, classes);
    const heading = avsb.element("h3", {}, avsb.element("b", {}, run.label), ` ${shown.condition === "clean" ? "" : shown.condition + " "}${score(gallery, shown.score)}`);
    if (shown.sourceId) heading.append(`, recording of ${shown.sourceId}`);
    const frames = avsb.element("div", { class: "frames" },
      avsb.element("img", { src: media(gallery, `${entry.key}.webp`), alt: `${entry.frames} frames of ${entry.id}, one per second`, loading: "lazy", width: truth.width, height: truth.height }), canvas);
    const made = avsb.element("div", { class: "strip" }, heading, frames, waveform(gallery, source, truth.width / truth.height));
    if (classes) {
      made.append(avsb.element("p", { class: "legend" }, ...classes.map((label) => {
        const swatch = avsb.svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, avsb.svg("rect", { width: 14, height: 14, rx: 2, fill: `rgb(${colourOf(classes, label).join(" ")})`, stroke: "#000" }));
        return avsb.element("span", {}, swatch, gallery.classes[label] ?? String(label));
      })));
    }
    return made;
  };

  // Fill a clip's element: a strip per run and audio condition.
  const fill = async (holder, gallery, entry, runs, options) => {
    const turn = holder.dataset.turn = String(Number(holder.dataset.turn ?? 0) + 1);
    try {
      const clip = await loadClip(gallery, entry.key);
      const truth = await decode(clip.truth);
      const strips = [];
      for (const run of runs) {
        const masks = await loadMasks(gallery, run.key, entry.key);
        const chosen = masks.conditions.filter((one) => !options.condition || one.condition === options.condition || one.condition === "clean");
        for (const shown of chosen) strips.push(await strip(gallery, entry, clip, truth, run, shown, options));
      }
      if (!runs.length) strips.push(await strip(gallery, entry, clip, truth, { label: "Ground truth" }, { condition: "clean", mask: "", score: null }, { ...options, truth: true, mode: options.mode === "error" ? "outline" : options.mode }));
      if (holder.dataset.turn === turn) holder.replaceChildren(...strips);
    } catch (error) {
      holder.replaceChildren(avsb.element("p", { class: "missing" }, `n/a: this clip cannot be shown (${error.message ?? "damaged image"})`));
    }
  };

  const swatch = (colour, dashed) => avsb.svg("svg", { width: 26, height: 12, viewBox: "0 0 26 12", "aria-hidden": "true" },
    avsb.svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: "#000", "stroke-width": 6 }),
    avsb.svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: `rgb(${colour.join(" ")})`, "stroke-width": 3, "stroke-dasharray": dashed ? "6 3" : "none" }));
  const square = (colour) => avsb.svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, avsb.svg("rect", { width: 14, height: 14, rx: 2, fill: `rgb(${colour.join(" ")})`, stroke: "#000" }));
  const item = (mark, text) => avsb.element("span", {}, mark, text);

  // The legend of an overlay.
  const legend = (holder, options, semantic) => {
    const entries = [];
    if (options.mode === "error") {
      entries.push(item(square(bothColour), "correct"), item(square(truthColour), "missed (striped)"), item(square(predictionColour), "falsely predicted (dotted)"));
      if (semantic) entries.push(item(square(wrongColour), "wrong class"));
    } else {
      if (options.truth) entries.push(item(swatch(truthColour, false), "ground truth"));
      if (options.prediction) entries.push(item(swatch(predictionColour, true), "prediction (dashed)"));
      if (options.mode === "fill" && !semantic && options.truth && options.prediction) entries.push(item(square(bothColour), "both"));
      if (options.mode === "fill" && semantic) entries.push(avsb.element("span", {}, "fills are classes, named below each strip; with both layers the prediction is striped"));
    }
    holder.replaceChildren(...entries);
  };

  // Elements of clips, filled when they come into view.
  const list = (holder, gallery, entries, runsOf, options, note) => {
    const observer = new IntersectionObserver((seen) => {
      for (const one of seen) {
        if (!one.isIntersecting || one.target.dataset.filled) continue;
        one.target.dataset.filled = "true";
        fill(one.target.querySelector(".strips"), gallery, one.target.entry, runsOf(), options());
      }
    }, { rootMargin: "400px 0px" });
    const made = entries.map((entry) => {
      const article = avsb.element("article", { class: "clip", "data-clip": entry.key, tabindex: "-1" },
        avsb.element("h2", {}, entry.id, avsb.element("span", { class: "dim" }, [entry.category, note ? note(entry) : ""].filter(Boolean).join(" · "))),
        avsb.element("div", { class: "strips" }));
      article.entry = entry;
      observer.observe(article);
      return article;
    });
    holder.replaceChildren(...made);
    return () => observer.disconnect();
  };

  const repaint = (holder, gallery, runs, options) => {
    for (const article of holder.querySelectorAll(".clip[data-filled]")) fill(article.querySelector(".strips"), gallery, article.entry, runs, options);
  };

  return { legend, list, repaint, score };
})();
