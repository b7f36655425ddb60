//! How a launch is set up: its index space, the walks of its operands, and the scratch memory of the threads.

use super::norm::is_replaced;
use super::real::Real;
use super::sink::Sink;
use super::source::Source;
use super::{Cpu, Isa};
use crate::aligned::Aligned;
use crate::plan::tree::LEAF;
use crate::plan::{self, Grid, Walk};
use crate::tensor::{Dims, Layout, View, ViewMut};
use crate::{Error, Result};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::ops::Range;

/// An order of a spec's axes: the kept ones, which count rows, then those that make a row.
pub(super) struct Order {
    axes: Dims,
    kept: usize,
}

impl Order {
    /// The spec's own: `row` are the axes of a row, ascending.
    pub(super) fn new(rank: usize, row: &[usize]) -> Self {
        let (row, kept): (Dims, Dims) = (0..rank).partition(|axis| row.contains(axis));
        Order { kept: kept.len(), axes: kept.into_iter().chain(row).collect() }
    }

    /// With the kept axes that parameters vary along (`affine`) after the other kept ones, so that each of the latter's
    /// indices has all parameters side by side.
    pub(super) fn with_kept_split(self, affine: &[usize]) -> Self {
        let (kept, row) = self.axes.split_at(self.kept);
        let others = kept.iter().filter(|axis| !affine.contains(axis));
        let varied = kept.iter().filter(|axis| affine.contains(axis));
        Order { kept: self.kept, axes: others.chain(varied).chain(row).copied().collect() }
    }

    /// With the axes of a row that parameters vary along (`affine`) before its others, so that a row is a sequence of
    /// sub-rows.
    pub(super) fn with_row_split(self, affine: &[usize]) -> Self {
        let (kept, row) = self.axes.split_at(self.kept);
        let others = row.iter().filter(|axis| !affine.contains(axis));
        let varied = row.iter().filter(|axis| affine.contains(axis));
        Order { kept: self.kept, axes: kept.iter().chain(varied).chain(others).copied().collect() }
    }

    /// Whether a row's elements, as far as `shape` has them, are in this order already.
    pub(super) fn is_row_ascending(&self, shape: &[usize]) -> bool {
        let row: Dims = self.axes[self.kept..].iter().copied().filter(|&axis| shape[axis] > 1).collect();
        row.is_sorted()
    }

    /// Elements along those of a row's axes that are in `affine` (or are not, for `varied` = false).
    pub(super) fn row_len(&self, shape: &[usize], affine: &[usize], varied: bool) -> usize {
        len_along(&self.axes[self.kept..], shape, affine, varied)
    }

    /// Rows along those of the kept axes that are in `affine` (or are not).
    pub(super) fn kept_len(&self, shape: &[usize], affine: &[usize], varied: bool) -> usize {
        len_along(&self.axes[..self.kept], shape, affine, varied)
    }

    /// The layout of just the axes in `affine`, in this order: of a parameter that was seen in the whole shape.
    pub(super) fn parameter(&self, affine: &[usize], layout: &Layout) -> Layout {
        let axes = || self.axes.iter().filter(|axis| affine.contains(axis));
        let shape: Dims = axes().map(|&axis| layout.shape()[axis]).collect();
        let strides: Dims<isize> = axes().map(|&axis| layout.strides()[axis]).collect();
        Layout::strided(&shape, &strides, layout.offset()).unwrap_or_else(|_| layout.clone())
    }
}

fn len_along(axes: &[usize], shape: &[usize], affine: &[usize], varied: bool) -> usize {
    axes.iter().filter(|axis| affine.contains(axis) == varied).map(|&axis| shape[axis]).product()
}

/// The layout in a spec's shape of a `[rows, per_row]` tensor: a step along a row stays at its first number.
pub(super) fn per_row(shape: &[usize], row: &[usize], per_row: usize, layout: &Layout) -> Layout {
    let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
    let mut step = per_row as isize;
    for axis in (0..shape.len()).rev().filter(|axis| !row.contains(axis)) {
        strides[axis] = step;
        step *= shape[axis] as isize;
    }
    Layout::strided(shape, &strides, layout.offset()).unwrap_or_else(|_| layout.clone())
}

/// A launch's index space and the walks of its operands.
pub(super) struct Folded {
    isa: Isa,
    pub(super) grid: Grid,
    /// How those tensors are walked that are there.
    walks: SmallVec<[Walk; 8]>,
    /// Which walk is that of each tensor.
    places: SmallVec<[u8; 24]>,
}

impl Folded {
    /// The first tensor that is there takes the place of those that are not, so that walks keep their positions.
    pub(super) fn new(isa: Isa, order: &Order, tensors: &[Option<&Layout>]) -> Self {
        let mut places: SmallVec<[u8; 24]> = SmallVec::new();
        let mut there: SmallVec<[&Layout; 8]> = SmallVec::new();
        for layout in tensors {
            places.push(layout.map_or(0, |_| there.len() as u8));
            there.extend(*layout);
        }
        let shape = there.first().map_or(&[][..], |layout| layout.shape());
        let (grid, walks) = plan::fold_in_order(shape, order.axes.split_at(order.kept), &there);
        Folded { isa, grid, walks, places }
    }

    /// How a tensor is walked.
    pub(super) fn walk(&self, walk: usize) -> &Walk {
        &self.walks[usize::from(self.places[walk])]
    }

    pub(super) fn source<'a>(
        &'a self,
        name: &'static str,
        view: &'a View<'_>,
        walk: usize,
        copied: bool,
    ) -> Result<Source<'a>> {
        Source::new(view, &self.grid, self.walk(walk), self.isa, copied).ok_or_else(|| foreign(name))
    }

    pub(super) fn optional<'a>(
        &'a self,
        name: &'static str,
        view: Option<&'a View<'_>>,
        walk: usize,
    ) -> Result<Option<Source<'a>>> {
        view.map(|view| self.source(name, view, walk, false)).transpose()
    }

    /// One that an output may take the place of.
    pub(super) fn replaced<'a>(
        &'a self,
        name: &'static str,
        view: Option<&'a View<'_>>,
        walk: usize,
        output: Option<&ViewMut<'_>>,
    ) -> Result<Option<Source<'a>>> {
        view.map(|view| self.source(name, view, walk, is_replaced(view, output))).transpose()
    }

    pub(super) fn sink<'a>(
        &'a self,
        name: &'static str,
        view: &'a ViewMut<'_>,
        walk: usize,
    ) -> Result<Sink<'a>> {
        Sink::new(view, &self.grid, self.walk(walk), self.isa).ok_or_else(|| foreign(name))
    }

    pub(super) fn optional_sink<'a>(
        &'a self,
        name: &'static str,
        view: Option<&'a ViewMut<'_>>,
        walk: usize,
    ) -> Result<Option<Sink<'a>>> {
        view.map(|view| self.sink(name, view, walk)).transpose()
    }
}

/// An operand that is not in host memory; the arguments' checks exclude it.
pub(super) fn foreign(name: &'static str) -> Error {
    Error::argument(name, "host memory", "memory of another device")
}

/// The index space of a single tensor, whose axes from `first` on are a row.
pub(super) fn alone(isa: Isa, layout: &Layout, first: usize) -> Folded {
    let row: Dims = (first..layout.rank()).collect();
    Folded::new(isa, &Order::new(layout.rank(), &row), &[Some(layout)])
}

/// Tiles of [`LEAF`] numbers.
pub(super) type Tiles<'t, F> = [&'t mut [F]; TILES];

/// As many as the hungriest schedule needs.
const TILES: usize = 9;

thread_local! {
    /// Tiles, and a vector of any length: kept between calls so that launches allocate nothing.
    static SCRATCH: RefCell<(Aligned, Aligned)> = const { RefCell::new((Aligned::new(), Aligned::new())) };
}

/// Lends this thread's tiles, and a vector of `len` numbers.
pub(super) fn with_scratch<F: Real, R>(len: usize, body: impl FnOnce(Tiles<'_, F>, &mut [F]) -> R) -> R {
    SCRATCH.with(|scratch| {
        // Taken out while in use: a task that ran inside another's body would find it empty and grow its own.
        let (mut tiles, mut vector) = scratch.take();
        let mut parts = tiles.numbers::<F>(TILES * LEAF).chunks_exact_mut(LEAF);
        let lent = std::array::from_fn(|_| parts.next().expect("as many as there are tiles"));
        let result = body(lent, vector.numbers(len));
        scratch.replace((tiles, vector));
        result
    })
}

thread_local! {
    /// Numbers that a launch keeps between its steps, beside what its tasks on the same thread use.
    static KEPT: RefCell<Aligned> = const { RefCell::new(Aligned::new()) };
}

/// Lends the calling thread's vector for numbers between the steps of a launch.
pub(super) fn with_kept<F: Real, R>(len: usize, body: impl FnOnce(&mut [F]) -> R) -> R {
    KEPT.with(|kept| {
        let mut vector = kept.take();
        let result = body(vector.numbers(len));
        kept.replace(vector);
        result
    })
}

/// A slice that tasks share out among themselves.
pub(super) struct Shared<'a, F>(*mut F, usize, std::marker::PhantomData<&'a mut [F]>);

// SAFETY: tasks take disjoint parts; see `part`.
unsafe impl<F: Send> Send for Shared<'_, F> {}
// SAFETY: as above.
unsafe impl<F: Send> Sync for Shared<'_, F> {}

impl<'a, F> Shared<'a, F> {
    pub(super) fn new(slice: &'a mut [F]) -> Self {
        Shared(slice.as_mut_ptr(), slice.len(), std::marker::PhantomData)
    }

    /// # Safety
    /// No other live part meets `range`.
    #[allow(clippy::mut_from_ref, reason = "parts are disjoint by contract")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [F] {
        assert!(range.start <= range.end && range.end <= self.1, "a part inside the slice");
        // SAFETY: inside the slice, and apart from others by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// What threads share out among themselves.
pub(super) trait Tasks: Sync {
    fn count(&self) -> usize;

    /// Elements that a task handles, about.
    fn elements(&self) -> usize;

    fn run(&self, task: usize);
}

impl Cpu {
    /// Runs all of these tasks, which do not need each other's results, in one round of the threads.
    pub(super) fn run_all<T: Tasks>(&self, all: &[T]) {
        let count = all.iter().map(T::count).sum::<usize>();
        let of_all = all.iter().map(|tasks| tasks.count().saturating_mul(tasks.elements()));
        let elements = of_all.fold(0, usize::saturating_add) / count.max(1);
        self.for_each(count, elements, |mut task| {
            for tasks in all {
                if task < tasks.count() {
                    return tasks.run(task);
                }
                task -= tasks.count();
            }
        });
    }

    /// Runs `task(0)` to `task(count - 1)`, on several threads where the work of `elements` a task is worth it.
    pub(super) fn for_each(&self, count: usize, elements: usize, task: impl Fn(usize) + Send + Sync) {
        // With 2^16 elements spread out, RMSNorm spent some 40 % of its time on waking threads.
        if count <= 1 || count.saturating_mul(elements) < 1 << 17 {
            return (0..count).for_each(task);
        }
        self.threads.for_each(count, task);
    }
}
