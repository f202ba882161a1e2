//! Draws the dashboards: `grafana/source/*.toml` says what there is to see, this how Grafana wants it (schema version 39, Grafana 11).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The width of a dashboard, in Grafana's units.
const WIDTH: u16 = 24;

/// A dashboard as its source has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    uid: String,
    title: String,
    description: String,
    /// Beside data source, data centre and node.
    #[serde(default)]
    variables: Vec<Variable>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    label: String,
    query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// The variable for each of whose values there is such a row.
    repeat: Option<String>,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    #[serde(default)]
    kind: Kind,
    title: String,
    description: String,
    unit: String,
    #[serde(default = "half")]
    width: u16,
    /// The colour below the first threshold.
    #[serde(default = "green")]
    base: String,
    #[serde(default)]
    thresholds: Vec<(f64, String)>,
    /// What 0, 1, 2 ... are called.
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    stack: bool,
    /// Columns of a table.
    #[serde(default)]
    hide: Vec<String>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// Legend and expression.
    queries: Vec<(String, String)>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Lines,
    Stat,
    Bars,
    Timeline,
    Table,
    Heatmap,
}

fn half() -> u16 {
    WIDTH / 2
}

fn green() -> String {
    "green".to_owned()
}

/// The dashboard of a source.
#[track_caller]
pub(super) fn draw(source: &str) -> Value {
    let Dashboard { uid, title, description, variables, rows } =
        toml::from_str(source).unwrap_or_else(|error| panic!("{error}"));
    json!({
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["numgen"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "timezone": "browser",
        "links": [{
            "type": "dashboards", "title": "numgen", "tags": ["numgen"], "asDropdown": false, "includeVars": true, "keepTime": true,
        }],
        "annotations": { "list": annotations() },
        "templating": { "list": templating(&variables) },
        "panels": panels(&rows),
    })
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// What was deployed when: a version that was not there a few minutes ago, and every start of a node.
fn annotations() -> Value {
    let annotation = |name: &str, color: &str, expr: &str, title: &str, text: &str| {
        json!({
            "name": name, "enable": true, "hide": false, "iconColor": color, "datasource": datasource(), "expr": expr,
            "step": "30s", "titleFormat": title, "textFormat": text,
        })
    };
    let mut started = annotation(
        "Starts",
        "blue",
        "process_start_time_seconds{instance=~\"$instance\"} * 1000 * on (job, instance) group_left (node) numgen_node_info",
        "Start",
        "{{node}}",
    );
    started["useValueForTime"] = json!("on"); // the value is the time of the start, in ms
    json!([
        {
            "name": "Annotations & Alerts", "type": "dashboard", "builtIn": 1, "enable": true, "hide": true,
            "iconColor": "rgba(0, 211, 255, 1)", "datasource": { "type": "grafana", "uid": "-- Grafana --" },
        },
        annotation(
            "Deployments",
            "purple",
            "count by (version) (numgen_build_info{instance=~\"$instance\"}) unless count by (version) (numgen_build_info offset 5m)",
            "Deployment",
            "version {{version}}",
        ),
        started,
    ])
}

fn templating(own: &[Variable]) -> Value {
    let query = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource(), "definition": query,
            "query": { "query": query, "refId": name }, "multi": true, "includeAll": true,
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] }, "options": [], "refresh": 2, "regex": "",
            "skipUrlSync": false, "sort": 3, "hide": 0,
        })
    };
    // Where nothing is chosen, nothing is filtered: also what began since the page was opened.
    let open = |mut variable: Value| {
        variable["allValue"] = json!(".*");
        variable
    };
    let mut list = vec![
        json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "options": [],
            "multi": false, "includeAll": false, "refresh": 1, "regex": "", "skipUrlSync": false, "hide": 0,
        }),
        open(query("datacenter", "Data centre", "label_values(numgen_node_info, datacenter)")),
        open(query("node", "Node", "label_values(numgen_node_info{datacenter=~\"$datacenter\"}, node)")),
    ];
    // Nodes have names for people, and addresses by which Prometheus knows them: queries filter by these.
    let chosen = "label_values(numgen_node_info{datacenter=~\"$datacenter\", node=~\"$node\"}, instance)";
    let mut instance = query("instance", "Address", chosen);
    instance["hide"] = json!(2);
    list.push(instance);
    list.extend(own.iter().map(|own| {
        let variable = query(&own.name, &own.label, &own.query);
        // A repeated row wants the values themselves.
        if own.name == "store" { variable } else { open(variable) }
    }));
    Value::Array(list)
}

/// All rows, with their panels from left to right.
fn panels(rows: &[Row]) -> Vec<Value> {
    let mut drawn: Vec<Value> = Vec::new();
    let mut top = 0;
    for row in rows {
        let mut head = json!({
            "id": drawn.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "h": 1, "w": WIDTH, "x": 0, "y": top },
        });
        if let Some(variable) = &row.repeat {
            head["repeat"] = json!(variable);
        }
        drawn.push(head);
        top += 1;
        for line in lines(&row.panels) {
            let height = line.iter().map(|panel| panel.kind.height()).max().unwrap_or_default();
            let mut left = 0;
            for panel in line {
                let place = json!({ "h": height, "w": panel.width, "x": left, "y": top });
                drawn.push(panel.draw(drawn.len() + 1, place));
                left += panel.width;
            }
            top += height;
        }
    }
    drawn
}

/// Panels that fit beside each other.
fn lines(panels: &[Panel]) -> Vec<&[Panel]> {
    let mut lines = Vec::new();
    let (mut begin, mut used) = (0, 0);
    for (at, panel) in panels.iter().enumerate() {
        if used + panel.width > WIDTH {
            lines.push(&panels[begin..at]);
            (begin, used) = (at, 0);
        }
        used += panel.width;
    }
    lines.push(&panels[begin..]);
    lines
}

impl Kind {
    const fn height(self) -> u16 {
        match self {
            Self::Stat => 4,
            Self::Lines | Self::Bars | Self::Timeline | Self::Table | Self::Heatmap => 8,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Lines => "timeseries",
            Self::Stat => "stat",
            Self::Bars => "bargauge",
            Self::Timeline => "state-timeline",
            Self::Table => "table",
            Self::Heatmap => "heatmap",
        }
    }

    /// Whether it shows the present alone.
    const fn is_of_now(self) -> bool {
        matches!(self, Self::Bars | Self::Table)
    }
}

impl Panel {
    fn draw(&self, id: usize, place: Value) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.kind.as_str(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": place,
            "fieldConfig": { "defaults": self.field(), "overrides": [] },
            "options": self.options(),
            "targets": self.targets(),
        });
        if self.kind == Kind::Table {
            let excluded: Map<String, Value> =
                self.hide.iter().map(|column| (column.clone(), json!(true))).collect();
            panel["transformations"] = json!([{
                "id": "organize", "options": { "excludeByName": excluded, "indexByName": {}, "renameByName": self.rename },
            }]);
        }
        panel
    }

    fn field(&self) -> Value {
        let number = |value: f64| if value.fract() == 0.0 { json!(value as i64) } else { json!(value) };
        let mut steps = vec![json!({ "color": self.base, "value": null })];
        steps.extend(
            self.thresholds.iter().map(|(value, color)| json!({ "color": color, "value": number(*value) })),
        );
        let mut field = json!({
            "unit": self.unit,
            "thresholds": { "mode": "absolute", "steps": steps },
        });
        match self.kind {
            Kind::Lines => {
                let line = if self.thresholds.is_empty() { "off" } else { "dashed" };
                field["color"] = json!({ "mode": "palette-classic" });
                field["custom"] = json!({
                    "drawStyle": "line", "lineWidth": 1, "fillOpacity": if self.stack { 30 } else { 8 }, "showPoints": "never",
                    "spanNulls": false, "axisSoftMin": 0, "stacking": { "mode": if self.stack { "normal" } else { "none" }, "group": "A" },
                    "thresholdsStyle": { "mode": line },
                });
            }
            Kind::Timeline => {
                field["color"] = json!({ "mode": "thresholds" });
                field["custom"] = json!({ "fillOpacity": 80, "lineWidth": 0 });
            }
            Kind::Stat | Kind::Bars | Kind::Table => field["color"] = json!({ "mode": "thresholds" }),
            Kind::Heatmap => {}
        }
        if !self.values.is_empty() {
            let named = self.values.iter().enumerate();
            let named: Map<String, Value> =
                named.map(|(at, text)| (at.to_string(), json!({ "text": text, "index": at }))).collect();
            field["mappings"] = json!([{ "type": "value", "options": named }]);
        }
        field
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.kind {
            Kind::Lines => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Stat => json!({
                "reduceOptions": last, "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "textMode": "auto",
            }),
            Kind::Bars => json!({
                "reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": true, "valueMode": "color",
            }),
            Kind::Timeline => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true }, "mergeValues": true, "showValue": "auto",
                "rowHeight": 0.8, "alignValue": "left", "tooltip": { "mode": "single", "sort": "none" },
            }),
            Kind::Table => {
                json!({ "showHeader": true, "cellHeight": "sm", "sortBy": [{ "displayName": "node", "desc": false }] })
            }
            Kind::Heatmap => json!({
                "calculate": false, "cellGap": 1, "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5 },
                "yAxis": { "unit": self.unit, "axisPlacement": "left" }, "rowsFrame": { "layout": "auto" }, "legend": { "show": true },
                "tooltip": { "mode": "single", "yHistogram": false },
            }),
        }
    }

    fn targets(&self) -> Vec<Value> {
        let format = match self.kind {
            Kind::Table => "table",
            Kind::Heatmap => "heatmap",
            Kind::Lines | Kind::Stat | Kind::Bars | Kind::Timeline => "time_series",
        };
        let target = |(at, (legend, expr)): (usize, &(String, String))| {
            let name = char::from(b'A' + u8::try_from(at).expect("a few queries")).to_string();
            json!({
                "refId": name, "datasource": datasource(), "editorMode": "code", "expr": expr.trim(), "legendFormat": legend,
                "format": format, "instant": self.kind.is_of_now(), "range": !self.kind.is_of_now(),
            })
        };
        self.queries.iter().enumerate().map(target).collect()
    }
}
