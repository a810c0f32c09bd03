// Writes TypeScript that assigns a dashboard to Grafana's own types, for tsc to check: node grafana.mjs FILE.json > out.ts
import { readFileSync } from "node:fs";

const text = readFileSync(process.argv[2], "utf8");
const types = "@grafana/schema/dist/esm/raw";
const lines = [
  `import type { Dashboard, Panel, RowPanel } from "${types}/dashboard/x/Dashboard_types.gen";`,
  `import type { Options as Stat } from "${types}/composable/stat/panelcfg/x/StatPanelCfg_types.gen";`,
  `import type { Options as Series, FieldConfig } from "${types}/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";`,
  // An enum of strings, as JSON has it: its values.
  "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
  `export const board: Plain<Dashboard> = ${text};`,
];
const options = { stat: "Stat", timeseries: "Series" };
JSON.parse(text).panels.forEach((one, at) => {
  const { options: chosen, fieldConfig, ...rest } = one;
  const { custom, ...defaults } = fieldConfig?.defaults ?? {};
  if (one.type === "row") {
    lines.push(`export const row${at}: Plain<RowPanel> = ${JSON.stringify(one)};`);
    return;
  }
  lines.push(
    `export const panel${at}: Plain<Panel> = ${JSON.stringify({ ...rest, fieldConfig: { ...fieldConfig, defaults } })};`,
    `export const options${at}: Plain<Partial<${options[one.type]}>> = ${JSON.stringify(chosen)};`);
  if (custom) lines.push(`export const custom${at}: Plain<FieldConfig> = ${JSON.stringify(custom)};`);
});
process.stdout.write(lines.join("\n") + "\n");
