"use strict";
// Names of clusters: typed on the cards, saved as names.toml.

document.addEventListener("DOMContentLoaded", () => {
  const { run, element } = fastcomus;
  let clusters = [...Array(run.clusters).keys()];
  const field = (kind, cluster) => document.querySelector(`[data-${kind}="${cluster}"]`);
  const DROPPED = "-";
  const RESERVED = "background"; // what belongs to no cluster

  // `merge`: the cluster whose name this one takes, or null.
  const given = clusters.map((cluster) => {
    const name = run.names[cluster] ?? "";
    return { name: name === DROPPED ? "" : name, merge: null, drop: name === DROPPED };
  });

  // The cluster at the end of a chain of merges.
  const rootOf = (cluster) => (given[cluster].merge === null ? cluster : rootOf(given[cluster].merge));

  // As names are taken over: composed, without what cannot be shown (control characters, halves of characters).
  const typed = (cluster) =>
    given[cluster].name.normalize("NFC").replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]+/gu, " ").trim();

  // A cluster that others are merged with needs a name, for equal names are what merges.
  const nameOf = (cluster) => {
    if (given[cluster].drop) return DROPPED;
    const root = rootOf(cluster);
    if (given[root].drop) return DROPPED;
    if (typed(root) && typed(root) !== RESERVED) return typed(root);
    const own = `cluster ${root}`;
    const isShared = clusters.some(
      (other) => other !== root && (typed(other) === own || (given[other].merge !== null && rootOf(other) === root)));
    return isShared ? own : "";
  };

  fastcomus.labelOf = (cluster) => {
    const name = nameOf(cluster);
    return name && name !== DROPPED ? name : `cluster ${cluster}`;
  };

  // A TOML string: JSON's escapes are TOML's.
  const quoted = (text) => JSON.stringify(text);

  fastcomus.namesToml = () => {
    const lines = clusters.filter((cluster) => nameOf(cluster)).map((cluster) => `${cluster} = ${quoted(nameOf(cluster))}`);
    return [`clusters = ${quoted(run.fingerprint)}`, "", "[names]", ...lines, ""].join("\n");
  };

  let saved = fastcomus.namesToml();

  // The names as they are saved: {cluster: name}, without those that have none.
  fastcomus.namesNow = () => Object.fromEntries(clusters.filter((one) => nameOf(one)).map((one) => [one, nameOf(one)]));

  const show = () => {
    const names = clusters.map(nameOf);
    for (const cluster of clusters) {
      const isDropped = names[cluster] === DROPPED;
      field("name", cluster).disabled = given[cluster].merge !== null || given[cluster].drop;
      field("merge", cluster).disabled = given[cluster].drop;
      field("drop", cluster).checked = given[cluster].drop;
      document.getElementById(`cluster-${cluster}`).classList.toggle("is-dropped", isDropped);
      document.querySelector(`[data-legend="${cluster}"]`)?.classList.toggle("is-dropped", isDropped);
      const others = isDropped || !names[cluster] ? [] : clusters.filter((other) => other !== cluster && names[other] === names[cluster]);
      const merged = field("merged", cluster);
      const isReserved = !given[cluster].drop && typed(cluster) === RESERVED;
      merged.hidden = !others.length && !isReserved;
      merged.textContent = isReserved
        ? "Background is what belongs to no cluster: drop this one instead."
        : `One with ${others.map((other) => `#${other}`).join(", ")}: the same name.`;
    }
    for (const label of document.querySelectorAll("[data-label]")) {
      label.textContent = fastcomus.labelOf(Number(label.dataset.label));
    }
    const known = [...new Set(names.filter((name) => name && name !== DROPPED))];
    document.getElementById("known-names").replaceChildren(...known.map((name) => element("option", { value: name })));
    const count = names.filter((name) => name && name !== DROPPED).length;
    const dropped = names.filter((name) => name === DROPPED).length;
    const state = `${count} of ${clusters.length} clusters named` + (dropped ? `, ${dropped} dropped` : "");
    const isSaved = saved === fastcomus.namesToml();
    document.getElementById("save-names").disabled = dropped === clusters.length;
    document.getElementById("naming-state").textContent = state + (isSaved ? "." : "; not saved yet.");
    fastcomus.onNames?.();
  };

  // The list of clusters to merge with is made when it is first needed: there may be hundreds of cards.
  const fillMerge = (cluster) => {
    const select = field("merge", cluster);
    const options = clusters
      .filter((other) => rootOf(other) !== cluster && !given[other].drop)
      .map((other) => element("option", { value: other }, `#${other} ${fastcomus.labelOf(other)}`));
    select.replaceChildren(element("option", { value: "" }, "no other"), ...options);
    select.value = given[cluster].merge ?? "";
  };

  const attach = (cluster) => {
    const [name, merge, drop] = ["name", "merge", "drop"].map((kind) => field(kind, cluster));
    name.value = given[cluster].name;
    name.addEventListener("input", () => { given[cluster].name = name.value; show(); });
    for (const event of ["focus", "pointerdown"]) merge.addEventListener(event, () => fillMerge(cluster));
    merge.addEventListener("change", () => {
      given[cluster].merge = merge.value === "" ? null : Number(merge.value);
      show();
    });
    drop.addEventListener("change", () => { given[cluster].drop = drop.checked; show(); });
    for (const one of [name, merge, drop]) one.addEventListener("change", () => fastcomus.saveNames?.());
  };
  clusters.forEach(attach);

  // What was saved, perhaps by another page: names by cluster, for so many clusters. A field that is being typed in stays.
  fastcomus.takeNames = (names, count) => {
    while (clusters.length > count) {
      document.getElementById(`cluster-${clusters.length - 1}`)?.remove();
      given.pop();
      clusters.pop();
    }
    while (clusters.length < count) {
      const cluster = clusters.length;
      const made = document.getElementById("added-card").innerHTML.replaceAll("__N__", String(cluster));
      document.getElementById("cards").insertAdjacentHTML("beforeend", made);
      given.push({ name: "", merge: null, drop: false });
      clusters = [...clusters, cluster];
      attach(cluster);
    }
    for (const cluster of clusters) {
      const name = names[cluster] ?? "";
      if (document.activeElement === field("name", cluster)) continue;
      given[cluster] = { name: name === DROPPED ? "" : name, merge: null, drop: name === DROPPED };
      field("name", cluster).value = given[cluster].name;
      field("merge", cluster).value = "";
    }
    saved = fastcomus.namesToml();
    show();
  };

  document.getElementById("save-names").addEventListener("click", () => {
    saved = fastcomus.namesToml();
    const address = URL.createObjectURL(new Blob([saved], { type: "application/toml" }));
    const link = element("a", { href: address, download: "names.toml" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    document.getElementById("run-folder").textContent = decodeURIComponent(new URL("..", location.href).pathname);
    document.getElementById("saved-hint").hidden = false;
    show();
  });

  window.addEventListener("beforeunload", (event) => {
    if (!fastcomus.live && saved !== fastcomus.namesToml()) event.preventDefault();
  });

  show();
});
