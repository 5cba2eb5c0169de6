"use strict";
// Opened by `fastcomus view`, the page saves what is said on it, and follows what others save. From disk it only shows.

document.addEventListener("DOMContentLoaded", async () => {
  const { run, element } = fastcomus;
  if (location.protocol !== "http:" || !location.pathname.endsWith("/report/index.html")) return;
  const base = new URL("../", location.href);
  const ask = (name, options) => fetch(new URL(name, base), options);
  const reply = await ask("api/state").catch(() => null);
  if (!reply?.ok) return;

  const byId = (id) => document.getElementById(id);
  let state = await reply.json();
  let saving = 0;
  let isTroubled = false;

  const news = (text, button) => {
    byId("news-text").textContent = text;
    byId("news-show").hidden = !button;
    byId("news").hidden = !text;
  };
  const isOutdated = () => state.clusters !== run.fingerprint;
  const OUTDATED = "Other clusters were made since this page was opened; nothing is saved from here.";
  const SILENT = "The server does not answer; is fastcomus view still running?";
  const read = (answer) => answer.json().catch(() => ({ error: `the server failed (${answer.status}); its terminal says why.` }));

  // Rows, or null where the server does not say.
  const askRows = async (name, options) => {
    const answer = await ask(name, options).catch(() => null);
    if (answer?.ok) return answer.json();
    news(answer ? (await read(answer)).error : SILENT, false);
    return null;
  };
  const sending = (what) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });

  const tools = {
    saved: element("span", { role: "status", id: "live-saved" }),
    undo: element("button", { type: "button", id: "live-undo" }, "Undo"),
    train: element("button", { type: "button", id: "live-train", class: "primary" }, "Train"),
  };
  byId("live-tools").append(tools.saved, tools.undo, tools.train);
  byId("save-names").hidden = true;
  const log = element("pre", { id: "live-log", tabindex: "0", "aria-label": "What training says" });
  log.hidden = true;
  document.querySelector(".save-bar").after(log);

  const showTraining = (training) => {
    const isRunning = training.state === "running";
    tools.train.textContent = isRunning ? "Stop training" : "Train";
    log.hidden = training.state === "none";
    log.textContent = [{ running: "Training.", done: "Trained.", stopped: "Stopped; Train goes on from there.", failed: "Training ended with an error:" }[training.state] ?? "", ...training.lines].join("\n");
  };
  const take = (now) => {
    state = now;
    if (isOutdated()) {
      news(OUTDATED, true);
      return;
    }
    run.colours = state.colours;
    fastcomus.takeNames(state.names, state.labels.length);
    fastcomus.takeObjects?.(state);
    for (const [cluster, colour] of state.colours.entries()) {
      for (const dot of document.querySelectorAll(`#cluster-${cluster} .name .dot, [data-legend="${cluster}"] .dot`)) dot.style.setProperty("--colour", colour);
    }
    tools.undo.disabled = !state.undo;
    fastcomus.recolourMap();
    showTraining(state.training);
  };

  // Returns whether it was saved. Saves follow one another.
  let before = Promise.resolve();
  const save = (what) => {
    const own = before.then(async () => {
      if (isOutdated()) {
        news(OUTDATED, true);
        return false;
      }
      saving += 1;
      tools.saved.textContent = "Saving…";
      try {
        const answer = await ask("api/save", sending({ ...what, clusters: run.fingerprint }));
        const told = await read(answer);
        if (told.outdated) {
          tools.saved.textContent = "Not saved.";
          news(OUTDATED, true);
          return false;
        }
        if (!answer.ok) throw new Error(told.error);
        news("", false);
        take(told);
        tools.saved.textContent = "Saved.";
        return true;
      } catch (error) {
        tools.saved.textContent = "Not saved.";
        news(error instanceof TypeError ? SILENT : `Not saved: ${error.message}`, false);
        return false;
      } finally {
        saving -= 1;
      }
    });
    before = own;
    return own;
  };
  fastcomus.saveNames = () => {
    const now = fastcomus.namesNow();
    const changed = {};
    for (const cluster of new Set([...Object.keys(now), ...Object.keys(state.names)])) {
      if (now[cluster] !== state.names[cluster]) changed[cluster] = now[cluster] ?? null;
    }
    return Object.keys(changed).length ? save({ do: "name", names: changed }) : Promise.resolve(true);
  };
  fastcomus.live = {
    save,
    findNearest: (row) => askRows(`api/nearest/${row}`),
    findAlike: (objects) => askRows("api/alike", sending({ objects })),
    get state() { return state; },
  };
  tools.undo.addEventListener("click", () => save({ do: "undo" }));
  tools.train.addEventListener("click", () => save({ do: state.training.state === "running" ? "stop" : "train" }));
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      save({ do: "undo" });
    }
  });

  // Another page, the command line or training may have changed something.
  const look = async () => {
    if (document.hidden || saving) return;
    const answer = await ask("api/version").catch(() => null);
    const now = answer ? await read(answer) : { error: SILENT };
    if (saving) return;
    if (now.error) {
      isTroubled = true; // the run is gone, or the server
      news(now.error, false);
      return;
    }
    if (isTroubled) news("", false);
    isTroubled = false;
    if (now.clusters !== state.clusters || now.version !== state.version) take(await (await ask("api/state")).json());
    else {
      state.training = now.training;
      showTraining(now.training);
    }
  };
  setInterval(look, 2000);
  document.addEventListener("visibilitychange", look);
  take(state);
  document.body.dataset.live = "yes";
});
