"use strict";
// All objects of a cluster or of a search, a page at a time; where they can be corrected, some may be chosen.

document.addEventListener("DOMContentLoaded", () => {
  const { run, element } = fastcomus;
  const objects = fastcomus.objects;
  const dialog = document.getElementById("objects");
  if (!dialog || !objects) return;
  const byId = (id) => document.getElementById(id);
  const PER_PAGE = 60;
  const without = new Set(objects.without);
  const corrected = new Set(objects.corrected);
  const padded = (number, digits) => String(number).padStart(digits, "0");
  const nameOf = (row) => objects.images[objects.image[row]];

  fastcomus.thumbnailOf = (row) => {
    if (!without.has(row)) return `thumbnails/${padded(Math.floor(row / 1000), 3)}/${padded(row, 6)}.jpg`;
    return fastcomus.live ? `../thumbnail/${row}` : "";
  };
  fastcomus.labelOfObject = (row) =>
    objects.cluster[row] < 0 ? "not an object" : fastcomus.labelOf(objects.cluster[row]);

  // -- the list that is shown ------------------------------------------------------------------------------------

  let shown = { title: "", about: "", rows: [], cluster: null, keepsOrder: true };
  let ordered = [];
  let page = 0;
  let last = null; // the row chosen last, from which shift chooses on
  const chosen = new Set();

  const ORDERS = {
    typical: (row) => objects.distance[row] + (objects.core[row] || corrected.has(row) ? 0 : 10),
    doubtful: (row) => objects.margin[row],
    poor: (row) => objects.soundness[row],
    unlike: (row) => -objects.unlike[row],
  };
  const order = () => {
    if (shown.keepsOrder) return shown.rows;
    const by = byId("objects-order").value;
    if (by === "name") return [...shown.rows].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
    const value = ORDERS[by];
    return [...shown.rows].sort((a, b) => value(a) - value(b) || a - b);
  };
  const pages = () => Math.max(1, Math.ceil(ordered.length / PER_PAGE));

  const caption = (row) => {
    const own = objects.cluster[row];
    const parts = [shown.cluster === null || shown.cluster !== own ? fastcomus.labelOfObject(row) : ""];
    if (objects.margin[row] < 0.05 && objects.second[row] >= 0 && objects.second[row] !== own && own >= 0) parts.push(`or ${fastcomus.labelOf(objects.second[row])}`);
    if (corrected.has(row)) parts.push("corrected");
    return parts.filter(Boolean).join(", ");
  };

  const item = (row) => {
    const source = fastcomus.thumbnailOf(row);
    const text = `${nameOf(row)}, ${fastcomus.labelOfObject(row)}`;
    const picture = source
      ? element("img", { src: source, width: 112, height: 112, alt: text, loading: "lazy", decoding: "async" })
      : element("span", { class: "missing" }, nameOf(row));
    const open = element("button", { type: "button", class: "object", "data-row": row, title: nameOf(row), "aria-label": `What is most like ${text}` }, picture);
    const made = element("li", {}, open, element("span", { class: "caption" }, caption(row)));
    if (fastcomus.live) {
      const box = element("input", { type: "checkbox", "data-choose": row, "aria-label": `Choose ${text}` });
      box.checked = chosen.has(row);
      made.prepend(box);
    }
    made.classList.toggle("is-chosen", chosen.has(row));
    return made;
  };

  const show = () => {
    ordered = order();
    page = Math.min(page, pages() - 1);
    const rows = ordered.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    byId("objects-title").textContent = typeof shown.title === "function" ? shown.title() : shown.title;
    byId("objects-about").textContent = shown.about;
    byId("objects-list").replaceChildren(...rows.map(item));
    byId("objects-order-label").hidden = shown.keepsOrder;
    byId("objects-state").textContent = ordered.length ? `Page ${page + 1} of ${pages()}, ${ordered.length} objects` : "None";
    for (const way of ["before", "after"]) byId(`objects-${way}`).hidden = pages() === 1;
    byId("objects-before").disabled = page === 0;
    byId("objects-after").disabled = page + 1 >= pages();
    showChosen();
  };

  const showChosen = () => {
    byId("objects-actions").hidden = !fastcomus.live;
    byId("objects-chosen").textContent = chosen.size ? `${chosen.size} chosen` : "Choose by the boxes (shift for all between, or the key x)";
    byId("objects-choices").hidden = !chosen.size;
    byId("objects-move").disabled = byId("objects-to").value === "";
    for (const box of dialog.querySelectorAll("[data-choose]")) {
      box.checked = chosen.has(Number(box.dataset.choose));
      box.parentElement.classList.toggle("is-chosen", box.checked);
    }
  };

  fastcomus.openList = (list) => {
    shown = { about: "", cluster: null, keepsOrder: true, ...list };
    page = 0;
    last = null;
    chosen.clear();
    if (byId("objects-to").value === String(shown.cluster)) byId("objects-to").value = "";
    show();
    if (!dialog.open) dialog.showModal();
    byId("objects-list").scrollTop = 0;
  };

  const rowsOf = (cluster) => objects.cluster.flatMap((own, row) => (own === cluster ? [row] : []));
  fastcomus.openMembers = (cluster, by) => {
    if (by) byId("objects-order").value = by;
    fastcomus.openList({ title: () => `${fastcomus.labelOf(cluster)} (#${cluster})`, rows: rowsOf(cluster), cluster, keepsOrder: false });
  };
  fastcomus.openObjects = (rows) =>
    fastcomus.openList({ title: "Inside of the lasso", rows, keepsOrder: false });

  // -- search by example -----------------------------------------------------------------------------------------

  const loadNear = () => new Promise((done, failed) => {
    if (fastcomus.near) return done();
    const script = element("script", { src: objects.near });
    script.addEventListener("load", done);
    script.addEventListener("error", failed);
    document.head.append(script);
  });
  fastcomus.openExample = async (row) => {
    let rows = [row];
    if (fastcomus.live) rows = [...new Set([row, ...((await fastcomus.live.findNearest(row)) ?? [])])];
    else if (objects.near) {
      await loadNear();
      rows = [row, ...fastcomus.near[row]];
    }
    fastcomus.openList({ title: `Most like ${nameOf(row)}`, about: "The object itself first, then what is most like it.", rows });
  };

  // -- events ----------------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const sample = event.target.closest("[data-object]");
    const all = event.target.closest("[data-all]");
    if (sample) {
      event.preventDefault();
      fastcomus.openExample(Number(sample.dataset.object));
    } else if (all) fastcomus.openMembers(Number(all.dataset.all));
  });
  const choose = (row, between) => {
    const rows = ordered.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    const wanted = !chosen.has(row);
    const [from, to] = [rows.indexOf(between && last !== null ? last : row), rows.indexOf(row)].sort((a, b) => a - b);
    for (const one of rows.slice(Math.max(from, 0), to + 1)) wanted ? chosen.add(one) : chosen.delete(one);
    last = row;
    showChosen();
  };
  byId("objects-list").addEventListener("click", (event) => {
    const box = event.target.closest("[data-choose]");
    const object = event.target.closest("[data-row]");
    if (box) choose(Number(box.dataset.choose), event.shiftKey);
    else if (object && fastcomus.live && (event.shiftKey || event.ctrlKey || event.metaKey)) choose(Number(object.dataset.row), event.shiftKey);
    else if (object) fastcomus.openExample(Number(object.dataset.row));
  });
  byId("objects-list").addEventListener("keydown", (event) => {
    const items = [...byId("objects-list").querySelectorAll(".object")];
    const place = items.indexOf(document.activeElement);
    if (place < 0) return;
    const columns = getComputedStyle(byId("objects-list")).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step) {
      event.preventDefault();
      items[place + step]?.focus();
    } else if (event.key === "x" && fastcomus.live) choose(Number(items[place].dataset.row), event.shiftKey);
  });
  byId("objects-order").addEventListener("change", () => { page = 0; show(); });
  byId("objects-before").addEventListener("click", () => { page -= 1; show(); });
  byId("objects-after").addEventListener("click", () => { page += 1; show(); });
  byId("objects-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const inClusters = () => [...objects.cluster.keys()].filter((row) => objects.cluster[row] >= 0);
  const first = (value) => inClusters().sort((a, b) => value(a) - value(b)).slice(0, 300);
  const looks = {
    doubtful: () => ({ title: "Most doubtful", about: "The most doubtful first: nearer to another cluster, or nearly so.", rows: first(ORDERS.doubtful) }),
    poor: () => ({ title: "Poor masks", about: "The most doubtful first: saliency is low in these masks and in those of what is most like them, as where they show background.", rows: first(ORDERS.poor) }),
    unlike: () => ({ title: "Unlike anything", about: "Farthest from what is most like them.", rows: objects.outliers }),
    duplicates: () => ({ title: "Near-duplicates", about: "Pairs from different photographs, the likest first.", rows: objects.duplicates.flat() }),
    corrected: () => ({ title: "Corrected", about: "What a person said something about.", rows: [...corrected].sort((a, b) => a - b) }),
  };
  for (const [name, list] of Object.entries(looks)) {
    byId(`look-${name}`).addEventListener("click", () => fastcomus.openList(list()));
  }

  if (!objects.soundness.length) {
    byId("look-poor").hidden = true;
    dialog.querySelector("option[value=poor]").remove();
  }

  // -- corrections, where the page is live -----------------------------------------------------------------------

  const move = async (to) => {
    if (await fastcomus.live.save({ do: "move", objects: [...chosen], to })) chosen.clear();
    showChosen();
  };
  byId("objects-to").addEventListener("change", showChosen);
  byId("objects-move").addEventListener("click", () => {
    const to = byId("objects-to").value;
    move(to === "new" ? to : Number(to));
  });
  byId("objects-none").addEventListener("click", () => move("-"));
  byId("objects-back").addEventListener("click", () => move("found"));
  byId("objects-alike").addEventListener("click", async () => {
    const examples = [...chosen];
    const found = await fastcomus.live.findAlike(examples);
    if (!found) return;
    const about = found.length
      ? `All are chosen: yours first, then ${found.length} more that are nearer to these than to their own cluster. Take out what does not belong, then move them.`
      : "Nothing else is nearer to these than to its own cluster.";
    fastcomus.openList({ title: "Like the chosen ones", about, rows: [...examples, ...found] });
    for (const row of shown.rows) chosen.add(row);
    showChosen();
  });
  byId("objects-keep").addEventListener("click", async () => {
    for (const cluster of new Set([...chosen].map((row) => objects.cluster[row]))) {
      if (cluster < 0) continue;
      const rows = [...chosen].filter((row) => objects.cluster[row] === cluster);
      if (!(await fastcomus.live.save({ do: "move", objects: rows, to: cluster }))) return;
    }
    chosen.clear();
    showChosen();
  });
  byId("objects-all").addEventListener("click", () => {
    for (const row of ordered.slice(page * PER_PAGE, (page + 1) * PER_PAGE)) chosen.add(row);
    showChosen();
  });

  // The state that the server has: the page follows.
  fastcomus.takeObjects = (state) => {
    objects.cluster = state.cluster;
    corrected.clear();
    state.corrected.forEach((row) => corrected.add(row));
    for (const size of document.querySelectorAll("[data-size]")) size.textContent = state.sizes[Number(size.dataset.size)] ?? 0;
    for (const samples of document.querySelectorAll("[data-live-samples]")) {
      const rows = rowsOf(Number(samples.dataset.liveSamples)).slice(0, 8);
      samples.replaceChildren(...rows.map((row) => element("a", { href: "#objects", "data-object": row, title: nameOf(row) },
        element("img", { src: fastcomus.thumbnailOf(row), width: 112, height: 112, alt: nameOf(row), loading: "lazy" }))));
    }
    const to = byId("objects-to");
    const wanted = to.value;
    const options = state.labels.map((label, cluster) => element("option", { value: cluster }, `${label} (#${cluster})`));
    to.replaceChildren(element("option", { value: "" }, "which cluster?"), element("option", { value: "new" }, "a new cluster"), ...options);
    to.value = Number(wanted) >= options.length ? "" : wanted;
    if (!dialog.open) return;
    if (shown.cluster !== null) shown.rows = rowsOf(shown.cluster);
    show();
  };
});
