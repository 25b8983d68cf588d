// Types of the vendored d3-hierarchy: those of @types/d3-hierarchy.
export * from "d3-hierarchy";
