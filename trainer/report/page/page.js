"use strict";
// The page, made from the report's JSON alone. Every figure of it stands in an element that names
// its place in the JSON (data-p), so that a test can hold one against the other.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const many = runs.length > 1;

const at = pointer => pointer.split("/").slice(1).reduce((json, key) => json === null || json === undefined ? undefined : json[key], data);

function si(x, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let i = 0;
  while (Math.abs(x) >= 999.95 && i + 1 < prefixes.length) { x /= 1000; ++i; }
  return `${digits(x)} ${prefixes[i]}${unit}`;
}
const formats = {
  ms: x => digits(x) + " ms", s: x => digits(x) + " s", share: x => (100 * x).toFixed(1) + " %", fine: x => (100 * x).toFixed(3) + " %", plain: mark,
  bytes: x => si(x, "B"), rate: x => si(x, "FLOP/s"), bandwidth: x => si(x, "B/s"), flops: x => si(x, "FLOP"), count: x => Math.round(x).toLocaleString("en-US"),
  loss: x => x.toFixed(4), gap: x => (x > 0 ? "+" : "") + x.toFixed(4), gain: x => x.toFixed(4), signed: x => (x > 0 ? "+" : "") + (100 * x).toFixed(1) + " %", db: x => x.toFixed(1) + " dB", ratio: x => x.toFixed(3),
};

// The figure at this place.
function num(pointer, format) {
  const x = at(pointer);
  if (typeof x !== "number") return el("span", {class: "why"}, "n/a");
  return el("span", {"data-p": pointer}, formats[format](x));
}

const why = section => el("p", {class: "why"}, `Not available: ${section.reason}.`);
const emulatedTag = run => run.header.recipe.emulated ? el("span", {class: "emulated"}, "emulated") : null;
const runColor = i => `var(--c${i % 8})`;
const runTitle = run => run.name + (run.name === run.header.recipe.name ? "" : ` · ${run.header.recipe.name}`) + (run.header.recipe.emulated ? " (emulated)" : "");
function runHead(i) {
  const run = runs[i];
  return el("h3", {}, el("span", {class: "dot", style: `background:${runColor(i)}`}), run.name,
    run.name === run.header.recipe.name ? null : " · " + run.header.recipe.name, emulatedTag(run));
}

// Of time: families of phases share a colour, in tints, and keep it from chart to chart.
const phaseColors = [[/^gemm_(bf16|fp32)$|^forward$/, 0], [/^gemm_|^backward$/, 5], [/^attn$/, 2], [/^quant$/, 1], [/^head_loss$/, 3], [/^norm_elem$/, 6], [/^grad_reduce$|^comm$/, 4],
  [/^param_gather$/, 4, 60], [/^tp_comm$/, 4, 35], [/^optim/, 2, 60], [/^clip$/, 2, 35], [/^embed$/, 3, 55], [/^data/, 7], [/^host_gap$/, 7, 60], [/./, 7, 35]];
function phaseColor(phase) {
  const [, color, tint] = phaseColors.find(([pattern]) => pattern.test(phase));
  return tint ? `color-mix(in srgb, var(--c${color}) ${tint}%, var(--paper))` : `var(--c${color})`;
}

// ---- sections ------------------------------------------------------------------------------------

const sections = [];
function section(id, title, note, ...content) {
  sections.push([id, title]);
  return el("section", {id}, el("h2", {}, title), note ? el("p", {class: "note"}, note) : null, content);
}

// For each run its heading and what `f(run, pointer)` makes; a missing item says why.
function perRun(key, f) {
  return runs.map((run, i) => {
    const part = run[key];
    return [many || run.header.recipe.emulated ? runHead(i) : null, part.available ? f(run, `/runs/${i}/${key}`, i) : why(part)];
  });
}

function alerts() {
  return runs.flatMap(run => {
    const texts = [];
    const ending = run.header.ending;
    if (!ending.recorded) texts.push(`This run is not finished: ${ending.text}.`);
    else if (ending.code) texts.push(`This run ended with code ${ending.code}, ${ending.text}${ending.what ? ": " + ending.what : ""}.`);
    for (const file of ending.torn_files) texts.push(`The last line of ${file} is unfinished and was left out.`);
    if (run.header.config_check.available && !run.header.config_check.equal) texts.push("The configuration in its folder is not the one that ran: its hash differs from the recorded one.");
    for (const problem of run.header.problems) texts.push(`Left out: ${problem}`);
    if (run.step_time.available && run.step_time.all_tagged) texts.push("Every step behind warm-up is tagged: the figures are of all of them.");
    return texts.map(text => el("p", {class: "alert"}, many ? el("b", {}, run.name + ": ") : null, text));
  });
}

function tiles() {
  return runs.map((run, i) => {
    const p = `/runs/${i}`;
    const tile = (label, value) => el("div", {class: "tile"}, el("div", {class: "label"}, label), el("div", {class: "value"}, value), emulatedTag(run));
    const loss = run.loss.available && run.loss.validation.available ? ["validation loss", num(p + "/loss/validation/last", "loss")] : ["last training loss", num(p + "/loss/last", "loss")];
    return [many ? runHead(i) : null, el("div", {class: "tiles"},
      tile("median step", num(p + "/step_time/p50_ms", "ms")),
      tile("tokens per second", num(p + "/throughput/tokens_per_s", "count")),
      tile("model flops, causal", num(p + "/throughput/flops_per_s_causal", "rate")),
      run.throughput.available && run.throughput.sol.available ? tile("SOL", num(p + "/throughput/sol/value", "share")) : null,
      tile(...loss),
      run.comm.available ? tile("exposed communication", num(p + "/comm/first_rank/exposed_share", "share")) : null,
      tile("goodput", num(p + "/goodput/productive_share", "share")),
      tile("peak memory", num(p + "/memory/peak_rss_bytes", "bytes")))];
  });
}

function pairTitle(pair) {
  return pair.observer ? `${pair.b}, timing on against off` : pair.noise_floor ? `${pair.b} again` : pair.b;
}

// A gain with its interval for each pair, beside what the GEMMs predict; the band is the threshold.
function intervalChart(comparison, pairs) {
  const values = pairs.flatMap(pair => [...pair.gain_interval, pair.prediction.available ? pair.prediction.gain : pair.gain]);
  const low = Math.min(1 - 2 * comparison.threshold, ...values), high = Math.max(1 + 2 * comparison.threshold, ...values);
  const margin = (high - low) * 0.05;
  const draw = width => {
    const row = 30, left = Math.min(230, 20 + 7 * Math.max(...pairs.map(pair => pairTitle(pair).length))), height = pairs.length * row + 30;
    const x = v => left + (v - low + margin) / (high - low + 2 * margin) * (width - left - 8);
    const parts = [svg("rect", {x: x(1 - comparison.threshold), y: 0, width: x(1 + comparison.threshold) - x(1 - comparison.threshold), height: height - 24, fill: "var(--soft)", opacity: 0.12}),
      svg("line", {x1: x(1), x2: x(1), y1: 0, y2: height - 24, stroke: "var(--soft)", "stroke-dasharray": "3 3"})];
    for (const t of ticks(low, high, (width - left) / 90)) parts.push(svg("text", {x: x(t), y: height - 6, "text-anchor": "middle"}, mark(t)));
    pairs.forEach((pair, i) => {
      const y = i * row + row / 2, color = pair.noise_floor || pair.observer ? "var(--c7)" : runColor(pair.b_index);
      parts.push(svg("text", {x: left - 10, y: y + 4, "text-anchor": "end"}, pairTitle(pair)),
        svg("line", {x1: x(pair.gain_interval[0]), x2: x(pair.gain_interval[1]), y1: y, y2: y, stroke: color, "stroke-width": 3, "stroke-linecap": "round"}),
        svg("circle", {cx: x(pair.gain), cy: y, r: 5, fill: color, stroke: "var(--paper)"}));
      if (pair.prediction.available) parts.push(svg("path", {d: `M${x(pair.prediction.gain)} ${y - 7}l6 7l-6 7l-6 -7z`, fill: "none", stroke: "var(--ink)", "stroke-width": 1.3}));
    });
    return {height, parts};
  };
  return figure("Gain over the baseline", "dots: measured, lines: 95 % intervals, diamonds: predicted from GEMMs and quantizers, band: the threshold; right of 1 is faster", draw);
}

function inTurnSection() {
  if (data.comparisons.length === 0) return null;
  return section("turn", "In turn", "What qstep compare measured: segments of A and B in the order A B B A, B A A B.", data.comparisons.map((comparison, c) => {
    const p = `/comparisons/${c}`;
    const shown = comparison.pairs.map((pair, k) => ({...pair, at: `${p}/pairs/${k}`})).filter(pair => pair.gain !== undefined);
    const predicted = shown.filter(pair => pair.prediction.available);
    const tag = is => is ? el("span", {class: "emulated"}, "emulated") : null;
    return [
      el("p", {}, `${comparison.cpu}, ${comparison.threads} ${comparison.threads === 1 ? "thread" : "threads"}; ${comparison.data}, ${comparison.tokens_per_step} tokens a step; segments of ${comparison.steps} steps behind ${comparison.warmup} of warm-up.`,
        comparison.finished ? null : el("b", {}, " Not finished.")),
      shown.length ? intervalChart(comparison, shown) : null,
      table(["recipe", "step", `${comparison.recipes[0].recipe} in turn`, "gain", "from", "to", "blocks", "verdict"], shown.map(pair => [el("span", {}, pairTitle(pair), tag(pair.emulated)), num(pair.at + "/b_ms", "ms"), num(pair.at + "/a_ms", "ms"),
        num(pair.at + "/gain", "gain"), num(pair.at + "/gain_interval/0", "gain"), num(pair.at + "/gain_interval/1", "gain"), num(pair.at + "/blocks", "count"),
        pair.emulated ? "none on speed" : pair.noise_floor || pair.observer ? "" : pair.verdict])),
      predicted.length ? [el("h3", {}, "Predicted by Amdahl"), el("p", {class: "note"}, "What the gain would be if nothing but the GEMMs of the blocks and the quantizers had changed."),
        table(["recipe", "predicted", "measured", "difference", "if only layers that save", "what else changed most"], predicted.map(pair => { const q = pair.at + "/prediction";
          return [pairTitle(pair), num(q + "/gain", "gain"), num(q + "/measured_gain", "gain"), num(q + "/difference", "signed"), num(q + "/winners_gain", "gain"),
            pair.prediction.explained ? "" : pair.prediction.others.slice(0, 3).map(o => `${o.category} ${o.change_ms > 0 ? "+" : ""}${digits(o.change_ms, 3)} ms`).join(", ")]; }), [5]),
        predicted.filter(pair => pair.b_index > 0).map(pair => [el("h3", {}, `What ${pair.b} saves by layer`, tag(pair.emulated)),
          table(["layers", `GEMMs, ${pair.a}`, `GEMMs, ${pair.b}`, `quantizers, ${pair.a}`, `quantizers, ${pair.b}`, "saves"], pair.prediction.linears.map((l, k) => { const q = `${pair.at}/prediction/linears/${k}`;
            return [l.op, num(q + "/gemms_a_ms", "ms"), num(q + "/gemms_b_ms", "ms"), num(q + "/quant_a_ms", "ms"), num(q + "/quant_b_ms", "ms"), num(q + "/net_ms", "ms")]; }))])] : null,
      comparison.loss_gaps.length ? [el("h3", {}, "Loss at equal tokens"), table(["recipe", "validation loss", "gap", "standard error", "seeds"], comparison.loss_gaps.map((g, k) => { const q = `${p}/loss_gaps/${k}`;
        return [el("span", {}, g.recipe, tag(g.emulated)), num(q + "/loss", "loss"), num(q + "/gap", "gap"), num(q + "/standard_error", "loss"), num(q + "/seeds", "count")]; }))] : null,
      comparison.notes.map(note => el("p", {class: "note"}, note)),
    ];
  }));
}

function compareSection() {
  if (!many) return null;
  const rows = runs.map((run, i) => {
    const p = `/runs/${i}`;
    const mine = run.compare;
    return [runTitle(run), num(p + "/step_time/p50_ms", "ms"), mine.available ? num(p + "/compare/step_time_ratio", "ratio") : "1",
      num(p + "/throughput/tokens_per_s", "count"), mine.available && mine.loss.available ? num(p + "/compare/loss/gap", "gap") : i === 0 ? "0" : "n/a",
      mine.available && mine.loss.available ? num(p + "/compare/loss/tokens", "count") : ""];
  });
  const other = runs[1].compare;
  return section("compare", "Side by side", `Against ${runTitle(runs[0])}. No interval: ${other.interval.reason}. No verdict on speed: ${other.speed_verdict.reason}.`,
    table(["run", "median step", "ratio of medians", "tokens/s", "validation loss, gap in nats", "at tokens"], rows));
}

function lossSection() {
  const training = [], validation = [], norms = [];
  runs.forEach((run, i) => {
    if (!run.loss.available) return;
    const name = runTitle(run), color = runColor(i);
    training.push({name, color, steps: run.loss.curve.step, values: run.loss.curve.value});
    norms.push({name, color, steps: run.loss.grad_norm_curve.step, values: run.loss.grad_norm_curve.value});
    const v = run.loss.validation;
    if (v.available) validation.push({name: name + ", validation", color, steps: v.curve.step, values: v.curve.value, points: true});
  });
  if (training.length === 0) return section("loss", "Loss", "", why(runs[0].loss));
  return section("loss", "Loss", "In nats per token. Lines: training; dots: validation, each at the precision named below.",
    lineChart("Loss", "over steps" + (many ? "" : `, ${training[0].name}`), [...training, ...validation]),
    el("div", {}, table(["run", "first", `mean of the last`, "validation", "best", "bits/byte", "evaluated in", "skipped"], runs.map((run, i) => {
      const p = `/runs/${i}/loss`, v = run.loss.available && run.loss.validation.available;
      return [runTitle(run), num(p + "/first", "loss"), num(p + "/last_mean", "loss"), v ? num(p + "/validation/last", "loss") : "n/a", v ? num(p + "/validation/best", "loss") : "n/a",
        v ? num(p + "/validation/last_bits_per_byte", "loss") : "n/a", v ? run.loss.validation.precision : "n/a", num(p + "/n_skipped", "count")];
    }))),
    lineChart("Gradient norm", "before clipping" + (many ? "" : `, ${training[0].name}`), norms));
}

function stepTimeSection() {
  return section("step-time", "Step time", "Warm-up and tagged steps are left out of the statistics and listed; no step is left out for its time.",
    perRun("step_time", (run, p, i) => {
      const t = run.step_time, label = runTitle(run);
      const marks = [["p50_ms", "p50"], ["p95_ms", "p95"]].filter(([key]) => t[key] !== null).map(([key, name]) => ({value: t[key], name}));
      const warmUp = f => {
        if (t.n_warm_up === 0) return [];
        const end = f.x(t.first_step + t.n_warm_up);
        return [svg("rect", {x: f.left, y: f.top, width: Math.max(1, end - f.left), height: f.bottom - f.top, fill: "var(--soft)", opacity: 0.12}),
          ...t.tagged.map(s => svg("path", {d: `M${f.x(s.step).toFixed(1)} ${f.bottom}l-3.5 6h7z`, fill: "var(--soft)"}, svg("title", {}, `step ${s.step}: ${s.tags.join(", ")}`)))];
      };
      const keys = ["n", "mean_ms", "sd_ms", "cv", "min_ms", "p5_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"];
      return [
        table(keys.map(k => k === "cv" ? "CV" : k === "sd_ms" ? "sd" : k.replace("_ms", "")), [keys.map(k => num(`${p}/${k}`, k === "n" ? "count" : k === "cv" ? "share" : "ms"))]),
        t.n > 0 ? histogramChart("Distribution", `of ${t.n} steps, ${label}`, t.histogram_ms, runColor(i), "ms", marks) : null,
        lineChart("Every step", `in ms, ${label}; shaded: warm-up; triangles: tagged`, [{name: label, color: runColor(i), steps: t.curve_ms.step, values: t.curve_ms.value}], {zero: true, marks: warmUp}),
        el("p", {class: "note"}, num(p + "/n_warm_up", "count"), " of warm-up, ", num(p + "/n_tagged", "count"), " tagged" + (t.tags.length ? ": " : "."),
          t.tags.map((tag, k) => [k ? ", " : "", `${tag.tag} `, num(`${p}/tags/${k}/n`, "count"), " (median ", num(`${p}/tags/${k}/p50_ms`, "ms"), ")"])),
        t.tagged.length ? el("details", {}, el("summary", {}, "Tagged steps"), table(["step", "time", "tags"], t.tagged.map((s, k) => [String(s.step), num(`${p}/tagged/${k}/step_ms`, "ms"), s.tags.join(", ")])),
          t.tagged_not_listed ? el("p", {class: "note"}, `and ${t.tagged_not_listed} more`) : null) : null,
      ];
    }));
}

function breakdownSection() {
  const shown = runs.filter(run => run.breakdown.available);
  // In the order of the first run, so that equal phases lie below each other.
  const order = shown.length ? shown[0].breakdown.phases.map(ph => ph.phase) : [];
  const place = ph => (order.indexOf(ph.phase) + 1) || order.length + 1;
  const bars = shown.map(run => ({name: many ? run.name : "step", parts: [...run.breakdown.phases].sort((a, b) => place(a) - place(b)).map(ph => ({name: ph.phase, value: ph.mean_ms, color: phaseColor(ph.phase)}))}));
  const labels = shown.map(runTitle).join(", ");
  return section("breakdown", "Where a step goes", "Mean of the measured steps. Communication counts with the part that computation did not hide.",
    bars.length ? stackedBars("Time by phase", labels, bars, "time", formats.ms) : null,
    perRun("breakdown", (run, p) => {
      const b = run.breakdown, layers = b.by_layer, label = runTitle(run);
      const steps = b.over_steps.first_step;
      const areas = b.phases.filter(ph => ph.share > 0.002).map(ph => ({name: ph.phase, color: phaseColor(ph.phase), values: b.over_steps.ms[ph.phase]}));
      return [
        table(["phase", "mean", "share"], [...b.phases.map((ph, k) => [ph.phase, num(`${p}/phases/${k}/mean_ms`, "ms"), num(`${p}/phases/${k}/share`, "share")]),
          ["sum", num(p + "/sum_ms", "ms"), ""]]),
        el("p", {class: "note"}, "Sum of the phases against the step, at worst: ", num(p + "/worst_sum_error", "share"), " apart."),
        steps.length > 1 ? stackedArea("Phases over the steps", `in ms, ${label}`, steps, areas) : null,
        layers.available ? stackedBars("Time by layer", `of a rank's step, ${label}`, layers.layers.map(l => ({name: l.layer < 0 ? "outside" : `block ${l.layer}`,
          parts: Object.entries(l.phases_ms).map(([name, value]) => ({name, value, color: phaseColor(name)}))})), "time", formats.ms) : [el("h3", {}, "By layer"), why(layers)],
      ];
    }));
}

function gemmTable(run, p, key) {
  const tag = row => row.emulated ? el("span", {class: "emulated"}, "emulated") : null;
  return table([key === "sites" ? "layer" : "layers", "GEMM", "m × n × k", "formats", "calls", "time", "rate", run.precision.gemms.against, "of it", "lost"], run.precision.gemms[key].map((row, k) => {
    const q = `${p}/gemms/${key}/${k}`;
    const formatText = row.format_a === row.format_b ? row.format_a : `${row.format_a} × ${row.format_b}`;
    return [key === "sites" ? (row.layer < 0 ? "head" : String(row.layer)) : num(q + "/n_layers", "count"), `${row.op} ${row.pass}`, `${row.m} × ${row.n} × ${row.k}`, el("span", {}, formatText, tag(row)),
      num(q + "/calls", "plain"), num(q + "/ms", "ms"), num(q + "/flops_per_s", "rate"), num(q + "/reference_flops_per_s", "rate"), num(q + "/share_of_reference", "share"), num(q + "/lost_ms", "ms")];
  }));
}

function ledgerMaps(run, p, key, title, format) {
  const ledger = run.precision.ledger;
  const values = ledger.rows.flatMap(r => r[key]).filter(v => v !== null);
  if (values.length === 0) return null;
  const low = Math.min(...values), high = Math.max(...values);
  const operands = [...new Set(ledger.rows.map(r => r.operand))];
  return el("div", {}, el("h3", {}, title, emulatedTag(run)),
    el("div", {class: "scale"}, format(low), el("i", {style: `background:${kScale}`}), format(high)),
    el("div", {class: "maps"}, operands.map(operand => {
      const rows = ledger.rows.filter(r => r.operand === operand);
      return heatMap(operand, rows.map(r => r.layer), ledger.steps, rows.map(r => r[key]), low, high, format);
    })));
}

function precisionSection() {
  return section("precision", "Precision", "GEMMs by the time they lose against the peak of the format that ran (or, without one, the fastest kind of GEMM); then what quantization did to its operands.",
    perRun("precision", (run, p) => {
      const gemms = run.precision.gemms, ledger = run.precision.ledger;
      return [
        gemms.available ? [el("p", {class: "note"}, `Against ${gemms.reference}. Per step of a rank; the most lost first.`),
          gemmTable(run, p, "kinds"), el("details", {}, el("summary", {}, `The worst of ${gemms.n_sites} GEMMs, layer by layer`), gemmTable(run, p, "sites"))]
          : [el("h3", {}, "GEMMs"), why(gemms)],
        ledger.available ? [
          ledgerMaps(run, p, "snr_db", "Signal to noise of the operands", formats.db),
          ledgerMaps(run, p, "underflowed_share", "Share of values that became zero", formats.share),
          el("p", {class: "note"}, "Layers from top to bottom, counted steps from left to right."),
          el("details", {}, el("summary", {}, "Table of the last counted step"), table(["layer", "operand", "format", "SNR", "became zero", "saturated", "not finite", "largest"],
            ledger.rows.map((r, k) => { const q = `${p}/ledger/rows/${k}`; return [r.layer, r.operand, el("span", {}, r.format, r.emulated ? el("span", {class: "emulated"}, "emulated") : null), num(q + "/last_snr_db", "db"),
              num(q + "/last_underflowed_share", "share"), num(q + "/last_saturated_share", "share"), num(q + "/last_non_finite_share", "share"), num(q + "/last_amax", "plain")]; }), [1, 2]))]
          : [el("h3", {}, "Numeric ledger"), why(ledger)],
        el("h3", {}, "Prediction by Amdahl"), run.precision.amdahl.available ? null : why(run.precision.amdahl),
      ];
    }));
}

function throughputSection() {
  const rows = runs.map((run, i) => {
    const p = `/runs/${i}/throughput`;
    return [runTitle(run), num(p + "/tokens_per_s", "count"), num(p + "/tokens_per_s_per_rank", "count"), num(p + "/flops_per_s_causal", "rate"), num(p + "/flops_per_s_full", "rate"),
      num(p + "/flops_per_token_causal", "flops"), num(p + "/flops_per_token_full", "flops")];
  });
  const shares = runs.map((run, i) => {
    const p = `/runs/${i}/throughput`;
    return [runTitle(run), num(p + "/mfu/value", "share"), num(p + "/mfu/full", "share"), num(p + "/hfu/value", "share"), num(p + "/sol/value", "share"), num(p + "/sol_mem/value", "share"),
      num(p + "/flops_per_s_causal_per_rank", "rate"), num(p + "/peak/flops_per_s/bf16", "rate")];
  });
  const first = runs[0].throughput;
  return section("throughput", "Throughput", first.available ? `At the median step. ${first.formula}.` : "",
    table(["run", "tokens/s", "per rank", "causal attention", "full attention", "per token, causal", "per token, full"], rows),
    el("h3", {}, "Utilisation of a rank"),
    table(["run", "MFU, causal", "MFU, full", "HFU", "SOL", "SOL with memory", "rate, causal", "BF16 peak"], shares),
    perRun("throughput", (run, p) => {
      const t = run.throughput, gain = t.largest_gain, shown = ["mfu", "hfu", "sol", "sol_mem"].filter(key => t[key].available);
      return [
        t.peak.available ? el("p", {class: "note"}, `Peaks of ${t.peak.machine}, ${t.peak.source}: `,
          Object.keys(t.peak.flops_per_s).map(format => [`${format} `, num(`${p}/peak/flops_per_s/${format}`, "rate"), "; "]), "memory ", num(p + "/peak/memory_bytes_per_s", "bandwidth"), ".") : why(t.peak),
        shown.length ? el("p", {class: "note"}, shown.map(key => `${key} = ${t[key].formula}. `)) : null,
        t.peak.available ? t.mfu.by_format.map((row, k) => el("p", {class: "note"}, `Divided by the ${row.format} peak instead: `, num(`${p}/mfu/by_format/${k}/value`, "share"), ".")) : null,
        gain.available ? el("p", {}, "Largest possible gain of the recipe over BF16, by its products alone: here ", num(p + "/largest_gain/here", "ratio"),
          gain.elsewhere.map((row, k) => [`; ${row.title} `, num(`${p}/largest_gain/elsewhere/${k}/value`, "ratio")]), ".") : why(gain),
      ];
    }));
}

function commSection() {
  return section("comm", "Communication", "Exposed: the step stood still for it. Skew: beyond the time of the rank that arrived last.",
    perRun("comm", (run, p) => [
      table(["first rank, per step", "bytes", "total", "exposed", "hidden", "exposed, of the step"], [["all collectives", num(p + "/first_rank/bytes", "bytes"), num(p + "/first_rank/total_ms", "ms"),
        num(p + "/first_rank/exposed_ms", "ms"), num(p + "/first_rank/overlap", "share"), num(p + "/first_rank/exposed_share", "share")]]),
      run.comm.collectives.available ? [
        stackedBars("Exposed and hidden time", `by collective, ${runTitle(run)}`, run.comm.collectives.rows.map(row => ({name: `${row.group} ${row.op}`,
          parts: [{name: "exposed", value: row.exposed_ms, color: "var(--c1)"}, {name: "hidden", value: Math.max(0, row.total_ms - row.exposed_ms), color: "var(--c5)"}]})), "time", formats.ms),
        table(["group, collective", "calls", "bytes", "total", "exposed", "hidden", "skew", "bandwidth"], run.comm.collectives.rows.map((row, k) => {
          const q = `${p}/collectives/rows/${k}`;
          return [`${row.group} ${row.op}`, num(q + "/calls", "plain"), num(q + "/bytes", "bytes"), num(q + "/total_ms", "ms"), num(q + "/exposed_ms", "ms"), num(q + "/overlap", "share"), num(q + "/skew_ms", "ms"), num(q + "/bytes_per_s", "bandwidth")];
        }))] : why(run.comm.collectives),
      run.comm.exposed_twice.available ? table(["exposed, by two measures", "collectives outside of the computation", "waits", "largest difference, of a step"], [["per step of a rank",
        num(p + "/exposed_twice/intervals_ms", "ms"), num(p + "/exposed_twice/waits_ms", "ms"), num(p + "/exposed_twice/worst_difference_share", "share")]]) : null]));
}

function ranksSection() {
  return section("ranks", "Ranks", "Busy: without waiting for others. Score: the best rank's busy time over its own.",
    perRun("ranks", (run, p) => [
      el("p", {}, run.ranks.straggler === null ? "No rank is slower than the best by more than 3 % in most windows." : el("b", {}, `Rank ${run.ranks.straggler} is slow.`)),
      table(["rank", "host", "busy", "score", "slowest in"], run.ranks.ranks.map((row, k) => { const q = `${p}/ranks/${k}`;
        return [String(row.rank), row.host || "n/a", num(q + "/busy_ms", "ms"), num(q + "/score", "ratio"), el("span", {}, num(q + "/slowest_windows", "count"), " of ", num(q + "/windows", "count"))]; })),
      table(["phase", "least", "rank", "median", "most", "rank"], run.ranks.phases.map((row, k) => { const q = `${p}/phases/${k}`;
        return [row.phase, num(q + "/min_ms", "ms"), String(row.min_rank), num(q + "/median_ms", "ms"), num(q + "/max_ms", "ms"), String(row.max_rank)]; }))]));
}

function memorySection() {
  return section("memory", "Memory", "",
    perRun("memory", (run, p) => [
      el("p", {}, "Peak resident memory of the first rank: ", num(p + "/peak_rss_bytes", "bytes"), "."),
      run.memory.by_owner.available ? [
        stackedBars("Memory by owner", `mean of the ranks, ${runTitle(run)}`, [{name: "rank", parts: run.memory.by_owner.owners.map((o, k) => ({name: o.owner, value: o.mean_bytes, color: `var(--c${k % 8})`}))}], "bytes", formats.bytes),
        table(["owner", "mean", "least", "most"], run.memory.by_owner.owners.map((o, k) => { const q = `${p}/by_owner/owners/${k}`; return [o.owner, num(q + "/mean_bytes", "bytes"), num(q + "/min_bytes", "bytes"), num(q + "/max_bytes", "bytes")]; }))]
        : why(run.memory.by_owner)]));
}

const goodputColors = {productive: 2, warm_up: 6, data_stall: 4, skipped: 3, checkpoint: 0, evaluation: 5, restarts: 1, other: 7};
function goodputSection() {
  const shown = runs.filter(run => run.goodput.available);
  return section("goodput", "Goodput", "Wall time from the first start to the end. Starts and ends are known to a second.",
    shown.length ? stackedBars("Wall time", shown.map(runTitle).join(", "), shown.map(run => ({name: many ? run.name : "run", parts: run.goodput.buckets.map(b => ({name: b.bucket, value: Math.max(0, b.s), color: `var(--c${goodputColors[b.bucket]})`}))})), "time", formats.s) : null,
    perRun("goodput", (run, p) => [
      table(["bucket", "time", "share", "what"], [...run.goodput.buckets.map((b, k) => [b.bucket, num(`${p}/buckets/${k}/s`, "s"), num(`${p}/buckets/${k}/share`, "share"), b.what]),
        ["wall", num(p + "/wall_s", "s"), "", `${run.goodput.starts} ${run.goodput.starts === 1 ? "start" : "starts"}; end from ${run.goodput.end}`]], [3])]));
}

function observerSection() {
  return section("observer", "What measuring took", "The timeline's own cost: noting a call, times the calls of a step.",
    perRun("observer", (run, p) => [
      table(["one note, ns", "notes of a step", "cost of a step", "share of the median step", "bound"],
        [[num(p + "/note_ns", "plain"), num(p + "/notes_per_step", "plain"), num(p + "/cost_ms", "ms"), num(p + "/share", "fine"), num(p + "/bound", "fine")]]),
      run.observer.within_bound ? null : el("p", {}, el("b", {}, "More than the bound: timing.level = \"phases\" notes waits alone."))]));
}

function factsTable(name, group) {
  return [el("h3", {}, name[0].toUpperCase() + name.slice(1)),
    !group.available ? why(group) : group.facts.length ? table(["", ""], group.facts.map(f => [f.name.replace("_", " "), f.value]), [1]) : el("p", {class: "why"}, "None of the variables that are recorded is set.")];
}

function headerSection() {
  return section("what", "What ran", "",
    perRun("header", (run, p, i) => {
      if (run.header.peer) return table(["", ""], [["file", run.header.path], ["log of", run.header.peer], ["times", run.header.times]], [1]);
      const h = run.header, facts = [["folder", h.path], ["configuration hash", (h.config_hash || "n/a") + (h.config_check.available ? (h.config_check.equal ? ", that of config.toml and recipe.toml" : `, but config.toml and recipe.toml have ${h.config_check.found}`) : "")], ["ranks", `${h.ranks}, ${h.tensor} of them share a layer`], ["ended", h.ending.text + (h.ending.time ? `, ${h.ending.time}` : "")]];
      if (h.model.available) facts.push(["model", `${h.model.preset || "by its dimensions"}: ${h.model.n_layers} layers, width ${h.model.width}, ${h.model.n_heads} heads, ${si(h.model.n_parameters, "")} parameters`],
        ["step", `${h.model.global_batch} sequences of ${h.model.seq_len} tokens, micro-batches of ${h.model.micro_batch}; seed ${h.model.seed}`]);
      if (h.data.available) facts.push(["corpus", h.data.data_content_hash || "unknown"], ["tokenizer", h.data.tokenizer]);
      if (h.hosts.length) facts.push(["hosts", h.hosts.join(", ")]);
      facts.push(["starts", h.starts.map(s => `step ${s.first_step} at ${s.time}`).join("; ") || "none"], ["checkpoints", h.checkpoints.join(", ") || "none"]);
      const layers = h.recipe.layers;
      return [
        table(["", ""], facts, [1]),
        layers.available ? table(["layers", "steps", "runs", ...Object.keys(layers.phases[0].groups[0].operands)], layers.phases.flatMap(ph => ph.groups.map(g =>
          [g.layers, `${ph.first_step} to ${ph.last_step}`, g.runs === "emulated" ? el("span", {class: "emulated"}, g.runs) : g.runs, ...Object.values(g.operands)])), [1, 2, 3, 4, 5, 6, 7, 8]) : why(layers),
        ["build", "machine", "libraries", "environment"].map(key => factsTable(key, h[key])),
        run.power.available ? null : [el("h3", {}, "Power, clocks, heat"), why(run.power)],
        el("details", {}, el("summary", {}, "config.toml"), el("pre", {}, h.config_toml)), el("details", {}, el("summary", {}, "recipe.toml"), el("pre", {}, h.recipe_toml)),
      ];
    }));
}

const body = [inTurnSection()];
if (runs.length) body.push(compareSection(), lossSection(), stepTimeSection(), breakdownSection(), precisionSection(), throughputSection(), commSection(), ranksSection(), memorySection(), goodputSection(), observerSection(), headerSection());
document.getElementById("report").append(
  el("p", {class: "brand"}, "Quarterstep report"), el("h1", {}, data.verdict), ...alerts(), ...tiles().flat(2).filter(x => x),
  el("nav", {"aria-label": "Sections"}, sections.map(([id, title]) => el("a", {href: "#" + id}, title))),
  ...body.filter(x => x), el("footer", {}, "Made by qstep report from the files of the runs; report.json beside this page has every figure."));
redraws.forEach(draw => draw());
