//! A norm whose result becomes codes of int8, but for its outliers.

use super::arguments::{self, ForwardArguments, check_flags, check_output, check_per_row};
use super::{Method, Quantized, checked, hidden_dtype, steps};
use crate::backend::{self, Forward};
use crate::spec::{Epilogue, Norm, STATISTICS, Spec};
use crate::tensor::{DType, Dims, Layout, Tensor, View, ViewMut};
use crate::{Error, Result, Stream};
use std::ops::Range;

/// A norm of rows whose result `y` becomes codes of int8 under a scale of each row, with outliers set apart, as LLM.int8() wants
/// its activations (Dettmers et al. 2022, arXiv 2208.07339). It is made by [`Quantized::outliers`]. With a threshold `t`, of 6 in
/// the paper, and `y` as float32, not yet rounded to 16 bits:
///
/// ```text
/// outliers of a row   |y| >= t; infinity is one, NaN is none
/// scale               max(c / 127, 2^-23), c the largest |y| of the row that is no outlier; NaN where any is NaN
/// code                nearest(y / scale), ties to even; 0 for an outlier
/// columns             those in which some row has an outlier
/// ```
///
/// A linear layer of weights `W` is then `scale * (codes · W) + y[:, columns] · W[columns]`, the second product in the input's
/// dtype, where the codes of these columns are 0 in every row.
///
/// [`forward`](Outliers::forward) gives all of that. On the ground floor nothing waits for a device:
/// [`forward_into`](Outliers::forward_into) flags columns, [`zero_columns`] sets their codes to 0, and
/// [`values_into`](Outliers::values_into) computes `y` for columns that are known.
///
/// Errors: those of the norm, and [`Error::Argument`] naming `threshold` where it is not a positive number, normal as float32, or
/// where codes are not of int8 with a scale of each row; `method` where the norm is not one over the last axes; `rotary` and
/// `dropout`, which are not supported.
///
/// ```
/// use normkit::norm::{OutlierCodes, Quantized};
/// use normkit::prelude::*;
/// use normkit::spec::Scaling;
/// use normkit::tensor::DType;
/// // The norm divides by 1 here.
/// let x = HostTensor::from_vec(vec![1.0f32, -1.0, 1.0, -1.0], &[1, 4])?;
/// let w = HostTensor::from_vec(vec![0.5f32, 1.0, 2.0, 7.0], &[4])?;
/// let norm = RmsNorm::new([4]).eps(0.0).weight(&w);
/// let norm = Quantized::new(norm, DType::I8, Scaling::Row).outliers(6.0);
/// let OutlierCodes { codes, columns, values, .. } = norm.forward(&x)?;
/// assert_eq!(codes.to_f64(), [32.0, -64.0, 127.0, 0.0]);
/// assert_eq!((&columns[..], values.to_f64()), (&[3][..], vec![-7.0]));
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Outliers<M> {
    norm: Quantized<M>,
}

/// What [`Outliers`] gives.
#[derive(Debug, Clone)]
pub struct OutlierCodes<T> {
    /// int8 codes, of the input's shape; 0 in `columns`.
    pub codes: T,
    /// The scales, float32, `[rows, 1]`.
    pub scales: T,
    /// The columns in which some row has an outlier, ascending.
    pub columns: Vec<usize>,
    /// The result in these columns, in the input's dtype, `[rows, columns]`.
    pub values: T,
}

/// Where [`Outliers::forward_into`] writes, with `rows` and `cols` those of [`Outliers::rows_and_cols`].
pub struct OutlierOutputs<'a> {
    /// int8, of the input's shape.
    pub codes: ViewMut<'a>,
    /// float32, `[rows, 1]`, row-major.
    pub scales: ViewMut<'a>,
    /// int32, `[cols]`, side by side. 1 is written for a column that has an outlier, and nothing for others: whoever makes them
    /// zeroes them first, once for all passes whose rows are to share them.
    pub flags: ViewMut<'a>,
    /// `[rows, STATISTICS]`, row-major, in the compute dtype: what [`Outliers::values_into`] wants.
    pub statistics: Option<ViewMut<'a>>,
    /// What was normalized, as by [`Method::forward_hidden_into`].
    pub hidden: Option<ViewMut<'a>>,
}

/// Sets the codes of flagged columns to 0, in place, so that these columns add nothing to a product of codes. `codes` are int8, of
/// any shape whose last axes have as many elements as there are `flags`, which are those of [`OutlierOutputs`].
///
/// Errors: [`Error::Argument`] for other shapes, dtypes or devices, a layout of codes that names an element twice, and
/// flags within the codes.
pub fn zero_columns(codes: &mut ViewMut<'_>, flags: &View<'_>, stream: &Stream<'_>) -> Result<()> {
    let view = codes.as_view();
    let cols = flags.layout().len();
    check_flags(Some(flags), cols, stream)?;
    arguments::check("codes", &view, view.shape(), DType::I8, stream)?;
    check_output("codes", &view, None, &[("flags", Some(flags))])?;
    let shape = view.shape();
    let of_columns = |kept: &usize| shape[*kept..].iter().product::<usize>() == cols;
    let Some(kept) = (0..shape.len()).rev().find(of_columns) else {
        let expected = format!("last axes of {cols} elements, one for each flag");
        return Err(Error::argument("codes", expected, format!("shape {shape:?}")));
    };
    if view.layout().is_empty() {
        return Ok(());
    }
    backend::zero_columns(codes, flags, kept, stream)
}

impl<M: Method> Outliers<M> {
    pub(super) fn new(norm: Quantized<M>) -> Self {
        Outliers { norm }
    }

    /// The spec for an input of this shape and dtype, or what is wrong with the configuration.
    pub fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec> {
        self.norm_of(shape, dtype).map(Spec::Norm)
    }

    fn norm_of(&self, shape: &[usize], dtype: DType) -> Result<Norm> {
        let Spec::Norm(norm) = self.norm.lower(shape, dtype)? else {
            return Err(Error::argument("method", "a norm over the last axes", self.norm.method.name()));
        };
        let none = "none beside outliers that are set apart";
        if norm.fusion.dropout.is_some() {
            return Err(Error::argument("dropout", none, "some"));
        }
        if let Epilogue::Rotary { .. } = norm.fusion.epilogue {
            return Err(Error::argument("rotary", none, "a rotary embedding"));
        }
        Ok(norm)
    }

    /// Rows and columns of an input of this shape.
    pub fn rows_and_cols(&self, shape: &[usize], dtype: DType) -> Result<[usize; 2]> {
        let spec = self.lower(shape, dtype)?;
        Ok([spec.rows(), spec.cols()])
    }

    /// Writes codes, scales, flags, and what else is asked for, in one pass. An outlier's code is 0, those of other rows in its
    /// column are not, until [`zero_columns`].
    pub fn forward_into(
        &self,
        input: &View<'_>,
        outputs: OutlierOutputs<'_>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape(), input.dtype())?;
        let given = self.norm.method.given().map(Tensor::view).transpose()?;
        let OutlierOutputs { mut codes, mut scales, mut flags, mut statistics, mut hidden } = outputs;
        let arguments = ForwardArguments {
            given: given.as_ref(),
            output: Some(codes.reborrow()),
            scales: Some(scales.reborrow()),
            flags: Some(flags.reborrow()),
            statistics: statistics.as_mut().map(ViewMut::reborrow),
            hidden: hidden.as_mut().map(ViewMut::reborrow),
            ..ForwardArguments::new(input)
        };
        steps::run_spec(spec, checked(self.norm.method.parameters())?, arguments, stream)
    }

    /// Writes the result in `columns` to `values`, `[rows, columns]` in the input's dtype, rounded once: from the `statistics` that
    /// [`forward_into`](Outliers::forward_into) has saved, and what the pass has read, of these columns alone. Neighbouring columns
    /// are one launch, so it is made for a few: LLM.int8() has found up to 7 in models of 13 billion parameters.
    ///
    /// Errors: [`Error::Argument`] for columns that are not there or do not ascend, and for views of other shapes or dtypes.
    pub fn values_into(
        &self,
        input: &View<'_>,
        statistics: &View<'_>,
        columns: &[usize],
        values: &mut ViewMut<'_>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let mut norm = self.norm_of(input.shape(), input.dtype())?;
        norm.fusion.quantization = None;
        let spec = Spec::Norm(norm);
        let [rows, cols] = [spec.rows(), spec.cols()];
        if let Some(wrong) = columns.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(Error::argument("columns", "ascending numbers", format!("{wrong:?}")));
        }
        if let Some(&last) = columns.last().filter(|&&last| last >= cols) {
            return Err(Error::argument("columns", format!("numbers below {cols}"), last));
        }
        let method_given = self.norm.method.given().map(Tensor::view).transpose()?;
        let given = method_given.as_ref().unwrap_or(statistics);
        check_per_row("statistics", statistics, [rows, STATISTICS], input.dtype(), stream)?;
        let written = values.as_view();
        arguments::check("values", &written, &[rows, columns.len()], input.dtype(), stream)?;
        let parameters = checked(self.norm.method.parameters())?;
        let read = [
            ("input", Some(input)),
            ("statistics", Some(statistics)),
            ("weight", parameters.weight.as_ref()),
            ("bias", parameters.bias.as_ref()),
            ("mask", parameters.mask.as_ref()),
            ("branch_bias", parameters.branch_bias.as_ref()),
            ("branch_scale", parameters.branch_scale.as_ref()),
            ("the operand before the norm", parameters.before.as_ref()),
            ("the operand after the norm", parameters.after.as_ref()),
        ];
        check_output("values", &written, None, &read)?;
        let arguments = ForwardArguments { given: Some(given), ..ForwardArguments::new(input) };
        let operands = arguments::forward(&spec, parameters, arguments, stream)?;
        let Spec::Norm(norm) = spec else { return Ok(()) };
        let layout = written.layout().clone();
        if layout.is_empty() {
            return Ok(());
        }
        let last = norm.shape.last().copied().unwrap_or(1);
        for (at, run) in runs(columns, last) {
            let piece = Piece { norm: &norm, run, last };
            let output = values.reborrow().with_layout(piece.output(&layout, at)?)?;
            let operands = piece.operands(&operands, output)?;
            backend::forward(&Spec::Norm(piece.norm()), operands, stream)?;
        }
        Ok(())
    }

    /// Codes, scales, the columns that have outliers, and the result in them. Waits for the device, since the columns have to be
    /// known.
    pub fn forward<T: Tensor>(&self, input: &T) -> Result<OutlierCodes<T>> {
        self.run(input, None)
    }

    /// The same, and what was normalized: the sum of the input and a residual.
    pub fn forward_hidden<T: Tensor>(&self, input: &T) -> Result<(OutlierCodes<T>, T)> {
        let view = input.view()?;
        let dtype = hidden_dtype(checked(self.norm.method.parameters())?, view.dtype());
        let mut hidden = input.empty(view.shape(), dtype)?;
        let codes = self.run(input, Some(hidden.view_mut()?))?;
        Ok((codes, hidden))
    }

    fn run<T: Tensor>(&self, input: &T, hidden: Option<ViewMut<'_>>) -> Result<OutlierCodes<T>> {
        let (view, device) = (input.view()?, input.device());
        let [rows, cols] = self.rows_and_cols(view.shape(), view.dtype())?;
        let mut codes = input.empty(view.shape(), DType::I8)?;
        let mut scales = input.empty(&[rows, 1], DType::F32)?;
        let mut flags = device.zeros(&[cols], DType::I32)?;
        let mut statistics = device.zeros(&[rows, STATISTICS], view.dtype().compute())?;
        let stream = device.stream();
        let outputs = OutlierOutputs {
            codes: codes.view_mut()?,
            scales: scales.view_mut()?,
            flags: flags.view_mut()?,
            statistics: Some(statistics.view_mut()?),
            hidden,
        };
        self.forward_into(&view, outputs, &stream)?;
        let on_host = flags.read()?;
        let columns: Vec<usize> = (0..cols)
            .filter(|&col| on_host.view().is_ok_and(|flags| flags.host_integer(col) == Some(1)))
            .collect();
        let mut values = input.empty(&[rows, columns.len()], view.dtype())?;
        if !columns.is_empty() {
            zero_columns(&mut codes.view_mut()?, &flags.view()?, &stream)?;
            self.values_into(&view, &statistics.view()?, &columns, &mut values.view_mut()?, &stream)?;
        }
        Ok(OutlierCodes { codes, scales, columns, values })
    }
}

/// Runs of neighbours among ascending columns, none of which goes on beyond a multiple of `last`: the place of the first in the list, and
/// the columns.
fn runs(columns: &[usize], last: usize) -> Vec<(usize, Range<usize>)> {
    let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
    for (at, &col) in columns.iter().enumerate() {
        match runs.last_mut() {
            Some((_, run)) if run.end == col && !col.is_multiple_of(last) => run.end = col + 1,
            _ => runs.push((at, col..col + 1)),
        }
    }
    runs
}

/// Some columns of a norm, neighbours along its last axis.
struct Piece<'n> {
    norm: &'n Norm,
    run: Range<usize>,
    /// The size of the last axis.
    last: usize,
}

impl Piece<'_> {
    /// The indices of an axis.
    fn range(&self, axis: usize) -> Range<usize> {
        let shape = &self.norm.shape;
        if !self.norm.reduced.contains(&axis) {
            return 0..shape[axis];
        }
        let slower = shape[axis + 1..].iter().product::<usize>();
        let at = self.run.start / slower.max(1) % shape[axis];
        if axis + 1 == shape.len() { at..at + self.run.len() } else { at..at + 1 }
    }

    /// The norm of these columns alone, whose statistics are given.
    fn norm(&self) -> Norm {
        let mut norm = self.norm.clone();
        let shape: Dims = (0..norm.shape.len()).map(|axis| self.range(axis).len()).collect();
        norm.shape = shape;
        norm.prefix = self.run.len();
        norm
    }

    /// A tensor of the spec's shape.
    fn view<'v>(&self, view: &View<'v>) -> Result<View<'v>> {
        let mut layout = view.layout().clone();
        for axis in self.norm.reduced.iter().copied() {
            layout = layout.sliced(axis, self.range(axis), 1)?;
        }
        view.clone().with_layout(layout)
    }

    /// The columns of `values` from `at` on.
    fn output(&self, values: &Layout, at: usize) -> Result<Layout> {
        debug_assert!(self.run.start % self.last + self.run.len() <= self.last);
        let columns = values.clone().sliced(1, at..at + self.run.len(), 1)?;
        let norm = self.norm();
        let kept: Dims = (0..norm.shape.len()).filter(|axis| !norm.reduced.contains(axis)).collect();
        let mut strides: Dims<isize> = Dims::from_elem(columns.strides()[1], norm.shape.len());
        let mut stride = columns.strides()[0];
        for axis in kept.into_iter().rev() {
            strides[axis] = stride;
            stride = stride.wrapping_mul(norm.shape[axis] as isize);
        }
        Layout::strided(&norm.shape, &strides, columns.offset())
    }

    /// What a pass over these columns reads and writes. Those that the parameters' own layouts repeat are repeated as before.
    fn operands<'v>(&self, all: &Forward<'v>, output: ViewMut<'v>) -> Result<Forward<'v>> {
        let of = |view: &Option<View<'v>>| view.as_ref().map(|view| self.view(view)).transpose();
        Ok(Forward {
            weight: of(&all.weight)?,
            bias: of(&all.bias)?,
            mask: of(&all.mask)?,
            given: all.given.clone(),
            before: of(&all.before)?,
            after: of(&all.after)?,
            branch_bias: of(&all.branch_bias)?,
            branch_scale: of(&all.branch_scale)?,
            output: Some(output),
            ..Forward::new(self.view(&all.input)?)
        })
    }
}
