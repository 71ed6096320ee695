//! `tidegate list`: the sources, transforms and sinks there are, from their own tables.

use std::io::Write;

use crate::failed::Failed;

/// Lists sources, transforms and sinks, or shows how one is written
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate list\n  tidegate list file\n  \
                        tidegate list sql >> pipeline.toml")]
pub(crate) struct Args {
    /// The `type` to show; all are listed when left out
    name: Option<String>,
}

/// A kind of component.
struct Kind {
    table: &'static str,
    name: &'static str,
    summary: &'static str,
    example: &'static str,
}

fn kinds() -> Vec<Kind> {
    let registry = tidegate::registry();
    let sources = registry.sources.iter().map(|(name, spec)| Kind {
        table: "sources",
        name,
        summary: spec.summary,
        example: spec.example,
    });
    let transforms = registry.transforms.iter().map(|(name, spec)| Kind {
        table: "transforms",
        name,
        summary: spec.summary,
        example: spec.example,
    });
    let sinks = registry.sinks.iter().map(|(name, spec)| Kind {
        table: "sinks",
        name,
        summary: spec.summary,
        example: spec.example,
    });
    sources.chain(transforms).chain(sinks).collect()
}

/// Prints them.
pub(crate) fn list(args: &Args, out: &mut impl Write) -> Result<(), Failed> {
    let kinds = kinds();
    let Some(name) = &args.name else {
        let width = kinds.iter().map(|kind| kind.name.len()).max().unwrap_or_default();
        let mut table = "";
        for kind in &kinds {
            if table != kind.table {
                let gap = if table.is_empty() { "" } else { "\n" };
                writeln!(out, "{gap}{}", kind.table)?;
                table = kind.table;
            }
            writeln!(out, "  {:width$}  {}", kind.name, kind.summary)?;
        }
        return Ok(());
    };
    let named: Vec<&Kind> = kinds.iter().filter(|kind| kind.name == name).collect();
    if named.is_empty() {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        let said = format!("error: there is no `{name}`; there are `{}`", names.join("`, `"));
        return Err(Failed::usage(said));
    }
    for (index, kind) in named.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        writeln!(out, "{gap}# {}\n[{}.NAME]\ntype = \"{name}\"", kind.summary, kind.table)?;
        if kind.table != "sources" {
            writeln!(out, "inputs = [\"INPUT\"]")?;
        }
        writeln!(out, "{}", kind.example.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: Option<&str>) -> Result<String, Failed> {
        let mut out = Vec::new();
        list(&Args { name: name.map(str::to_owned) }, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_listed_can_be_shown() {
        let all = listed(None).unwrap();
        for kind in kinds() {
            assert!(all.contains(kind.summary), "{all}");
            let shown = listed(Some(kind.name)).unwrap();
            assert!(shown.contains(kind.example.trim_end()), "{shown}");
        }
    }

    #[test]
    fn an_unknown_name_is_a_wrong_usage() {
        let Err(Failed::Usage(said)) = listed(Some("kafka")) else { panic!("no such source") };
        assert!(said.starts_with("error: there is no `kafka`; there are `"), "{said}");
    }
}
