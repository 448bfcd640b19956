// Elements without a name, repeated ids, references to missing elements, and wrong headings.
() => {
  const faults = [], ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push("id twice: " + id);
  for (const one of document.querySelectorAll("a, button, select, input, [role=tab], [role=region]")) {
    const label = one.getAttribute("aria-label") || one.textContent.trim() || (one.labels && [...one.labels].map((l) => l.textContent.trim()).join(""));
    if (!label && !one.classList.contains("skip")) faults.push("no name: " + one.outerHTML.slice(0, 80));
  }
  for (const one of document.querySelectorAll("[aria-controls]")) if (!document.getElementById(one.getAttribute("aria-controls"))) faults.push("missing: " + one.getAttribute("aria-controls"));
  for (const one of document.querySelectorAll("img:not([alt]), svg:not([aria-hidden]):not([aria-label])")) faults.push("no alternative: " + one.outerHTML.slice(0, 80));
  for (const one of document.querySelectorAll("thead th:not([scope])")) faults.push("no scope: " + one.outerHTML.slice(0, 80));
  if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1) faults.push("not one h1 and one main");
  if (!document.documentElement.lang) faults.push("no language");
  return faults;
}
