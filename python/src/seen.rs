//! The shapes in which methods see arrays whose users have them in others: groups of channels split from the last axis, and
//! scales and shifts that lack axes of their input.

use crate::config::Config;
use normkit::tensor::{Dims, Layout, View, ViewMut};
use normkit::{Error, Result};

impl Config {
    /// Whether it sees any array in another shape.
    pub(crate) fn sees_otherwise(&self) -> bool {
        matches!(self, Config::Modulated { .. } | Config::GatedRmsNorm { .. })
    }

    /// The shape in which the method sees an input of `shape`.
    pub(crate) fn seen_shape(&self, shape: &[usize]) -> Result<Dims> {
        let &Config::GatedRmsNorm { cols, group_size, .. } = self else { return Ok(Dims::from_slice(shape)) };
        let groups = groups(cols, group_size)?;
        match shape.split_last() {
            Some((last, leading)) if *last == cols => {
                Ok(leading.iter().copied().chain([groups, group_size]).collect())
            }
            _ => Err(argument("input", format!("a last axis of {cols}"), format!("shape {shape:?}"))),
        }
    }

    /// The view of an array that has the input's shape.
    pub(crate) fn seen<'v>(&self, view: View<'v>) -> Result<View<'v>> {
        match self {
            Config::GatedRmsNorm { .. } => {
                let layout = self.seen_layout(view.layout())?;
                view.with_layout(layout)
            }
            _ => Ok(view),
        }
    }

    /// As [`seen`](Config::seen), for an array that is written.
    pub(crate) fn seen_mut<'v>(&self, view: ViewMut<'v>) -> Result<ViewMut<'v>> {
        match self {
            Config::GatedRmsNorm { .. } => {
                let layout = self.seen_layout(view.layout())?;
                view.with_layout(layout)
            }
            _ => Ok(view),
        }
    }

    /// The view of a parameter, or of its gradient, beside an input of `shape`.
    pub(crate) fn seen_parameter<'v>(
        &self,
        name: &'static str,
        view: View<'v>,
        shape: &[usize],
    ) -> Result<View<'v>> {
        match self.parameter_shape(name, view.shape(), shape)? {
            Some(seen) => {
                let layout = split(view.layout(), &seen)?;
                view.with_layout(layout)
            }
            None => Ok(view),
        }
    }

    /// As [`seen_parameter`](Config::seen_parameter), for an array that is written.
    pub(crate) fn seen_parameter_mut<'v>(
        &self,
        name: &'static str,
        view: ViewMut<'v>,
        shape: &[usize],
    ) -> Result<ViewMut<'v>> {
        match self.parameter_shape(name, view.layout().shape(), shape)? {
            Some(seen) => {
                let layout = split(view.layout(), &seen)?;
                view.with_layout(layout)
            }
            None => Ok(view),
        }
    }

    fn seen_layout(&self, layout: &Layout) -> Result<Layout> {
        split(layout, &self.seen_shape(layout.shape())?)
    }

    /// The shape in which the method sees a parameter that is `own` beside an input of `shape`, where that is another.
    fn parameter_shape(&self, name: &'static str, own: &[usize], shape: &[usize]) -> Result<Option<Dims>> {
        match *self {
            Config::Modulated { .. } => modulation(name, own, shape).map(Some),
            Config::GatedRmsNorm { cols, .. } if own != [cols] => {
                Err(argument(name, format!("shape [{cols}]"), format!("shape {own:?}")))
            }
            Config::GatedRmsNorm { cols, group_size, .. } => {
                let mut seen = Dims::from_elem(1, shape.len().saturating_sub(1));
                seen.extend([groups(cols, group_size)?, group_size]);
                Ok(Some(seen))
            }
            _ => Ok(None),
        }
    }
}

/// How many groups the last axis has.
fn groups(cols: usize, group_size: usize) -> Result<usize> {
    if group_size > 0 && cols.is_multiple_of(group_size) {
        return Ok(cols / group_size);
    }
    Err(argument("group_size", format!("a divisor of the last axis, {cols}"), group_size.to_string()))
}

/// A scale or shift with all axes of an input of `shape`: those that it has but the last are the input's first ones.
fn modulation(name: &'static str, own: &[usize], shape: &[usize]) -> Result<Dims> {
    let lacks = shape.len().checked_sub(own.len());
    if let (Some(lacks), Some((last, leading)), Some((cols, _))) =
        (lacks, own.split_last(), shape.split_last())
        && last == cols
        && leading.iter().zip(shape).all(|(&own, &size)| own == 1 || own == size)
    {
        return Ok(leading.iter().copied().chain(std::iter::repeat_n(1, lacks)).chain([*last]).collect());
    }
    let expected = format!("the first and the last axes of {shape:?}, or 1 for any but the last");
    Err(argument(name, expected, format!("shape {own:?}")))
}

fn split(layout: &Layout, shape: &[usize]) -> Result<Layout> {
    // The last axis is split or axes of size 1 are added, which always works.
    layout.reshaped(shape).ok_or_else(|| argument("input", format!("shape {shape:?}"), "another".to_owned()))
}

fn argument(name: &'static str, expected: String, found: String) -> Error {
    Error::Argument { name, expected, found }
}
