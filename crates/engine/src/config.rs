//! From a configuration's text to a pipeline: keys read, variables filled, components made, and all
//! mistakes found at once, each with its place. Opens nothing.

/// Mistakes as they are shown.
mod report;

/// `${VAR}` inside strings.
mod variables;

/// Sizes, times, texts and lists.
mod values;

/// One component's table.
mod component;

/// What the TOML parser says, in words.
mod syntax;

/// What serde says, in words.
mod words;

/// The graph's mistakes together with those of the text.
mod together;

use std::ops::Range;
use std::path::PathBuf;

use tidegate_model::{Mistake, Registry};
use toml::de::DeTable;

use self::component::Component;
use self::values::{Value, describe};
use self::variables::Env;
use crate::graph::{Builder, Pipeline, Role, closest};

pub use self::report::{Found, Place, Report};

/// A configuration has at most this many bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// A pipeline has at most this many components.
pub const COMPONENTS_MAX: usize = 1_000;

/// The tables at the top of a configuration, by what is in them.
const ROLES: [Role; 3] = [Role::Source, Role::Transform, Role::Sink];
/// The keys at the top of a configuration.
const KEYS: [&str; 6] =
    ["memory", "data_dir", "shutdown_timeout", "sources", "transforms", "sinks"];

/// What is said elsewhere than in the configuration, and goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `memory`.
    pub memory: Option<usize>,
    /// In place of `data_dir`.
    pub data_dir: Option<PathBuf>,
}

/// A configuration's bytes as text.
///
/// # Errors
///
/// A report where they are too many, or no UTF-8.
pub fn decode<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Report> {
    let failed = |mistake| Err(Report::new(file, "", vec![mistake]));
    if bytes.len() > CONFIG_BYTES_MAX {
        let said = Mistake::new("this is too long for a configuration");
        return failed(said.help(format!("at most {CONFIG_BYTES_MAX} bytes are read")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return failed(Mistake::new("this is UTF-16").help("save it as UTF-8"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or_default();
            let said = format!("this is no UTF-8: the byte 0x{byte:02X}");
            let mistake = Mistake::at(at..at + '\u{fffd}'.len_utf8(), said);
            let text = String::from_utf8_lossy(bytes);
            Err(Report::new(file, &text, vec![mistake.help("save it as UTF-8")]))
        }
    }
}

/// Reads a configuration into a builder, whose graph isn't checked yet. `file` is what reports call
/// the text; `env` gives the values of variables.
///
/// # Errors
///
/// A report of all mistakes but the graph's.
pub fn parse(
    file: &str,
    text: &str,
    registry: &Registry,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Builder, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = || read(text, registry, env)?.into_builder();
    read().map_err(|mistakes| Report::new(file, text, mistakes))
}

/// Reads a configuration into a pipeline, checked and planned. See [`parse`].
///
/// # Errors
///
/// A report of all mistakes, at most one for each component.
pub fn load(
    file: &str,
    text: &str,
    registry: &Registry,
    env: &dyn Fn(&str) -> Option<String>,
    overrides: &Overrides,
) -> Result<Pipeline, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let load = || together::check(read(text, registry, env)?.with(overrides));
    load().map_err(|mistakes| Report::new(file, text, mistakes))
}

/// A configuration as read: options, components, and what is wrong beside the components.
struct Document<'i> {
    text: &'i str,
    builder: Builder,
    // Where the budget is said, unless it is said elsewhere.
    memory_at: Option<Range<usize>>,
    components: Vec<Component<'i>>,
    // Whether these are all: no table of components was unreadable.
    complete: bool,
    mistakes: Vec<Mistake>,
}

/// An error where the text is no TOML: what it means is then anybody's guess.
fn read<'i>(
    text: &'i str,
    registry: &Registry,
    env: Env<'_>,
) -> Result<Document<'i>, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax::mistakes(text, table.get_ref(), errors));
    }
    let mut document = Document {
        text,
        builder: Builder::default(),
        memory_at: None,
        components: Vec::new(),
        complete: true,
        mistakes: Vec::new(),
    };
    for (key, value) in table.into_inner() {
        let word = key.get_ref().as_ref();
        let tables = ROLES.map(Role::table);
        // A table whose name is misspelt is read all the same: others name what is in it.
        let name =
            if value.get_ref().is_table() { closest(word, tables.into_iter()) } else { None };
        let role = ROLES.into_iter().find(|role| role.table() == name.unwrap_or(word));
        if role.is_none_or(|role| role.table() != word) && !KEYS.contains(&word) {
            document.mistakes.push(unknown_key(word, key.span()));
        }
        let read = match role {
            Some(role) => document.components(role, value, registry, env),
            None => document.option(word, value, env),
        };
        if let Err(mistake) = read {
            document.complete &= role.is_none();
            document.mistakes.push(mistake);
        }
    }
    document.components.sort_by_key(|component| (component.role, component.head.start));
    if document.components.len() > COMPONENTS_MAX {
        let said = format!("these are {} components", document.components.len());
        let help = format!("a pipeline has at most {COMPONENTS_MAX}: split it in two");
        return Err(vec![Mistake::new(said).help(help)]);
    }
    Ok(document)
}

fn unknown_key(key: &str, span: Range<usize>) -> Mistake {
    let said = format!("unknown key `{key}`, expected one of `{}`", KEYS.join("`, `"));
    let mistake = Mistake::at(span, said);
    match closest(key, KEYS.into_iter()) {
        Some(name) => mistake.help(format!("did you mean `{name}`?")),
        None => mistake,
    }
}

impl<'i> Document<'i> {
    /// The budget and folders, as far as they are said elsewhere.
    fn with(mut self, overrides: &Overrides) -> Self {
        if let Some(memory) = overrides.memory {
            self.builder = self.builder.memory(memory);
            self.memory_at = None;
        }
        if let Some(folder) = &overrides.data_dir {
            self.builder = self.builder.data_dir(folder);
        }
        self
    }

    /// A key at the top that is no table of components.
    fn option(&mut self, key: &str, mut value: Value<'i>, env: Env<'_>) -> Result<(), Mistake> {
        variables::fill_value(&mut value, self.text, env)?;
        let builder = std::mem::take(&mut self.builder);
        self.builder = match key {
            "memory" => {
                self.memory_at = Some(value.span());
                builder.memory(values::size(key, &value, self.text)?)
            }
            "data_dir" => builder.data_dir(values::text(key, &value, self.text, "\"./state\"")?),
            "shutdown_timeout" => builder.shutdown_timeout(values::time(key, &value, self.text)?),
            _ => builder,
        };
        Ok(())
    }

    /// A table of components.
    fn components(
        &mut self,
        role: Role,
        value: Value<'i>,
        registry: &Registry,
        env: Env<'_>,
    ) -> Result<(), Mistake> {
        let (tables, span) = (role.table(), value.span());
        let what = describe(&value, self.text);
        let Some(table) = component::into_table(value.into_inner()) else {
            let said = format!("`{tables}` should be tables with names, not {what}");
            return Err(Mistake::at(span, said).help(format!("write [{tables}.NAME]")));
        };
        let stray = table.iter().find(|(key, value)| {
            key.get_ref() == "type" && !matches!(value.get_ref(), toml::de::DeValue::Table(_))
        });
        if let Some((key, _)) = stray {
            let said = format!("what stands in [{tables}] has no name");
            let help = format!("write [{tables}.NAME] in place of [{tables}]");
            return Err(Mistake::at(key.span(), said).help(help));
        }
        for (name, value) in table {
            self.components.push(Component::read(role, name, value, self.text, registry, env));
        }
        Ok(())
    }

    /// All components, made; the mistakes where that isn't possible.
    fn into_builder(self) -> Result<Builder, Vec<Mistake>> {
        let Self { mut builder, mut mistakes, components, text, .. } = self;
        for component in &components {
            match component.make(text) {
                Ok(made) => builder = component.add_to(builder, made),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() { Ok(builder) } else { Err(mistakes) }
    }
}
