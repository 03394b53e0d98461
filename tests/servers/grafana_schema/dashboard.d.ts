// What @grafana/schema says about a dashboard, as JSON has it, and what a panel of each type adds.
import type { AnnotationQuery, Dashboard, FieldConfig, Panel, TableFieldOptions, VariableModel } from "@grafana/schema";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as states from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as text from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen";
import type * as series from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A type as its JSON: a member of an enumeration becomes the value that it stands for. */
export type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer Value extends number}` ? Value : T
    : T extends (infer One)[]
      ? Json<One>[]
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

// The types have no optional options; Grafana itself fills in the defaults of its panels.
type Of<Type extends string, Options, Custom = never> = { type: Type } & Omit<
  Json<Panel<Partial<Options>, Partial<Custom>>>,
  "type" | "targets" | "fieldConfig" | "options"
> & {
    options?: Json<Partial<Options>>;
    targets?: Target[];
    fieldConfig?: {
      defaults: Omit<Json<FieldConfig>, "custom"> & { custom?: Json<Partial<Custom>> };
      overrides: { matcher: { id: "byName"; options: string }; properties: Override[] }[];
    };
  };

/** The types leave a query open: these are the forms that the two plug-ins document. */
export type Target =
  | {
      datasource: { type: "grafana-clickhouse-datasource"; uid: string };
      editorType: "sql";
      format: 0 | 1;
      pluginVersion: string;
      queryType: "timeseries" | "table";
      rawSql: string;
      refId: string;
    }
  | (Asked & { legendFormat: string; range: true; instant: false })
  | (Asked & { format: "table"; range: false; instant: true });

type Asked = { datasource: { type: "prometheus"; uid: string }; expr: string; refId: string };

/** The types leave the value of an override open: each is the value of the field of that name. */
type Field<Key extends keyof FieldConfig> = { id: Key; value: Json<NonNullable<FieldConfig[Key]>> };
type Override =
  | Field<"unit">
  | Field<"decimals">
  | Field<"min">
  | Field<"max">
  | Field<"thresholds">
  | Field<"mappings">
  | Field<"color">
  | { id: "links"; value: { title: string; url: string }[] }
  | { id: "custom.cellOptions"; value: Json<TableFieldOptions["cellOptions"]> };

export type AnyPanel =
  | Of<"bargauge", bargauge.Options>
  | Of<"stat", stat.Options>
  | Of<"state-timeline", states.Options, states.FieldConfig>
  | Of<"table", table.Options, table.FieldConfig>
  | Of<"text", text.Options>
  | Of<"timeseries", series.Options, series.FieldConfig>;

/** Prometheus' plug-in adds how the labels of a series become a mark. */
type Mark = Omit<Json<AnnotationQuery>, "target"> & { target?: Target; titleFormat?: string; tagKeys?: string };
type Variable =
  | (Omit<Json<VariableModel>, "query" | "type"> & { type: "constant"; query: string })
  | (Omit<Json<VariableModel>, "query" | "type"> & {
      type: "query";
      query: { editorType: "sql"; rawSql: string; refId: string; format: 1; queryType: "table" };
    });

export type AnyDashboard = Omit<Json<Dashboard>, "panels" | "annotations" | "templating"> & {
  panels: AnyPanel[];
  annotations?: { list: Mark[] };
  templating?: { list: Variable[] };
};
